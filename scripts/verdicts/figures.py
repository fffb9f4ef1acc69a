"""How often the validators agree with the reference: the table of the documentation.

python -m scripts.verdicts.figures    # prints it
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from scipy.stats import beta

from saelens_steer.metrics import code_validity, latex_validity

SET = Path(__file__).parents[2] / "tests" / "metrics" / "data" / "completions.jsonl"
VALIDATORS: dict[str, Callable[[str, bool], str]] = {
    "code": code_validity,
    "latex": latex_validity,
}
VERDICTS = ("absent", "valid", "invalid", "truncated")


def rows() -> list[dict[str, Any]]:
    """The set, with what the validators say as `code_said` and `latex_said`."""
    found = [json.loads(line) for line in SET.read_text(encoding="utf-8").splitlines()]
    for row in found:
        for name, validator in VALIDATORS.items():
            row[f"{name}_said"] = validator(row["text"], row["truncated"])
    return found


def misses(found: list[dict[str, Any]]) -> Iterator[tuple[str, str, str, str]]:
    """(id, validator, reference, what it said) of each disagreement."""
    for row in found:
        for name in VALIDATORS:
            if row[name] != row[f"{name}_said"]:
                yield row["id"], name, row[name], row[f"{name}_said"]


def interval(hits: int, n: int) -> tuple[float, float]:
    """The exact 95 % interval of a share, by Clopper and Pearson."""
    low = float(beta.ppf(0.025, hits, n - hits + 1)) if hits else 0.0
    high = float(beta.ppf(0.975, hits + 1, n - hits)) if hits < n else 1.0
    return low, high


def table(found: list[dict[str, Any]]) -> str:
    """One line per validator and verdict: recall, and false positives among the other texts."""
    lines = [
        "| validator | verdict | recall | 95 % interval | false positives | 95 % interval |",
        "|---|---|---|---|---|---|",
    ]
    for name in VALIDATORS:
        for verdict in VERDICTS:
            said = [(row[name] == verdict, row[f"{name}_said"] == verdict) for row in found]
            cells = [f"`{name}_validity`", verdict]
            for of in (True, False):
                hits = sum(s for is_it, s in said if is_it == of)
                n = sum(is_it == of for is_it, _ in said)
                low, high = interval(hits, n)
                cells += [f"{hits} / {n}", f"{100 * low:.1f} % – {100 * high:.1f} %"]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def page(found: list[dict[str, Any]]) -> str:
    """The two tables: of the held-out texts, and of all."""
    sealed = [row for row in found if row["sealed"]]
    return (
        f"On the {len(sealed)} held-out texts (described below):\n\n{table(sealed)}\n\n"
        f"On all {len(found)} texts:\n\n{table(found)}\n"
    )


if __name__ == "__main__":
    everything = rows()
    print(page(everything))
    for miss in misses(everything):
        print(*miss)
