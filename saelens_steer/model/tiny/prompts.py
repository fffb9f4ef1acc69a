"""Writes the shipped prompt sets: `python -m saelens_steer.model.tiny.prompts`."""

from __future__ import annotations

from pathlib import Path

from saelens_steer.files import write_jsonl
from saelens_steer.model.tiny.grammar import Example, examples

FOLDER = Path(__file__).parents[2] / "data" / "prompts"
SEED = 7


def write_prompts(folder: Path = FOLDER) -> list[Path]:
    """The sets as JSONL; prompts are drawn at random, not by result."""
    domains = [e for f in ("code", "math", "prose", "transport") for e in _draw(f, 60, "select")]
    mixed = _draw("mixed", 48, "heldout")
    transport = [e for f in ("transport", "prose") for e in _draw(f, 24, "heldout")]
    families = ("mixed", "code", "math", "prose", "transport")
    held_out = [e for f in families for e in examples(f, 24, SEED + 1, "heldout")]
    return [
        write_jsonl(folder / "tiny-domains-heldout.jsonl", _rows(held_out)),
        write_jsonl(folder / "tiny-domains.jsonl", _rows(domains, answers=True)),
        write_jsonl(folder / "tiny-code-math-mixed.jsonl", _rows(mixed)),
        write_jsonl(folder / "tiny-transport.jsonl", _rows(transport)),
    ]


def _draw(family: str, n: int, split: str) -> list[Example]:
    return examples(family, n, SEED, split)


def _rows(drawn: list[Example], answers: bool = False) -> list[dict[str, str]]:
    """One row per example; ids count within a family."""
    counts: dict[str, int] = {}
    rows = []
    for e in drawn:
        counts[e.family] = counts.get(e.family, 0) + 1
        row = {"id": f"{e.family}-{counts[e.family]:02d}", "text": e.prompt, "domain": e.family}
        rows.append(row | {"answer": e.answer} if answers else row)
    return rows


if __name__ == "__main__":
    for path in write_prompts():
        print(path)
