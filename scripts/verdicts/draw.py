"""Draw completions by their reference verdicts, and merge what was decided by reading.

    python -m scripts.verdicts.draw OUT          # OUT/drawn.jsonl; OUT/read-open.jsonl and -sealed
    python -m scripts.verdicts.draw OUT FILE     # with OUT/decided.jsonl, they are added to FILE

To be read are the completions on which the parsers gave no verdict, those on which ours differs,
and a tenth of the others. The files to read hold texts and cuts, in an order that tells nothing.
Decided lines hold `id`, `code` and `latex`. A third of the set, by hash, is sealed: it is opened
only after the validators are final.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from saelens_steer.metrics import code_validity, latex_validity
from scripts.verdicts.figures import SET

VERDICTS = ("absent", "valid", "invalid", "truncated")
PER_STRATUM = 90
KEPT = ("model", "prompt", "temperature", "push", "size", "seed", "example", "max_new_tokens")


def main(out: Path, target: Path | None = None) -> None:
    """Draw, or add to the set."""
    if target is None:
        rows = drawn(lines(out / "reference.jsonl"))
        write(out / "drawn.jsonl", rows)
        decided = {d["id"] for d in [*lines(out / "decided.jsonl"), *lines(SET)]}
        for name, sealed in (("open", False), ("sealed", True)):
            asked = [r for r in rows if r["sealed"] == sealed and must_read(r)]
            asked = sorted((r for r in asked if r["id"] not in decided), key=lambda r: r["id"])
            kept = ("id", "truncated", "completion")
            write(out / f"read-{name}.jsonl", [{k: r[k] for k in kept} for r in asked])
            print(f"{name}: {len(asked)} to read")
        return
    decisions = {d["id"]: d for d in lines(out / "decided.jsonl")}
    known = {row["id"]: row for row in lines(target)}  # what is there stays
    for row in lines(out / "drawn.jsonl"):
        if row["id"] not in known:
            known[row["id"]] = merged(row, decisions.get(row["id"]))
    write(target, [known[key] for key in sorted(known)])


def drawn(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Up to 90 rows of each verdict on code and LaTeX, by hash; all without one or with another."""
    for row in rows:
        key = f"{row['completion']}\0{row['truncated']}"
        row["id"] = hashlib.sha256(key.encode()).hexdigest()[:12]
        of_text = hashlib.sha256(row["completion"].encode()).hexdigest()
        row["sealed"] = int(of_text, 16) % 3 == 0
    rows = sorted(rows, key=lambda row: row["id"])
    chosen = {row["id"]: row for row in rows if differs(row)}
    for subject in ("code", "latex"):
        for verdict in VERDICTS:
            within = [row for row in rows if row[subject] == verdict]
            chosen |= {row["id"]: row for row in within[:PER_STRATUM]}
    return sorted(chosen.values(), key=lambda row: row["id"])


def must_read(row: dict[str, Any]) -> bool:
    """Whether the parsers gave no verdict, ours differs, or it is one in ten."""
    return differs(row) or int(row["id"], 16) % 10 == 0


def differs(row: dict[str, Any]) -> bool:
    """Whether the parsers gave no verdict, or ours differs."""
    text, cut = row["completion"], row["truncated"]
    return row["code"] != code_validity(text, cut) or row["latex"] != latex_validity(text, cut)


def merged(row: dict[str, Any], decision: dict[str, Any] | None) -> dict[str, Any]:
    """A row of the set: text, cut, reference, how it was found, provenance."""
    reference = {k: (decision or row)[k] for k in ("code", "latex")}
    if "read" in reference.values():
        raise SystemExit(f"{row['id']} has not been read")
    given = {k: row[k] for k in KEPT if row[k] not in ("none", False) or k == "size"}
    by = "reading" if decision else "parsers"
    about = {"sealed": row["sealed"], "text": row["completion"], "truncated": row["truncated"]}
    return {"id": row["id"], **about, **reference, "by": by, "from": given}


def lines(file: Path) -> list[dict[str, Any]]:
    """The rows of a JSONL file; none if there is none."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def write(file: Path, rows: list[dict[str, Any]]) -> None:
    """One JSON line each."""
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
