"""Write the prompts of the study of SmolLM2: `python -m scripts.smollm2.prompts` writes
configs/smollm2/mixed.jsonl (which are steered), selection.jsonl and others.jsonl."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

FOLDER = Path(__file__).parents[2] / "configs" / "smollm2"
SUBJECTS: dict[str, list[str]] = yaml.safe_load(
    Path(__file__).with_name("subjects.yaml").read_text(encoding="utf-8")
)
SETS = {
    "selection": {
        "code": "Write Python code to {}.",
        "math": "State {} as a formula.",
        "prose": "Write a paragraph about {}.",
    },
    "others": {
        "facts": "Tell me about {}.",
        "advice": "Give me advice on {}.",
        "lists": "Name {}.",
        "dialogue": "Write a short dialogue between {}.",
    },
}
"""File → domain → its wording."""
BOTH = "Give {}, in code and as a formula."
"""Asks for code and mathematics. Of about 30 wordings and examples tried on the 16 quantities of
`pilot` (greedy, 48 tokens), it is the one whose answers begin with a code fence (13) and contain
LaTeX (11) at rates between 15 and 85 %."""
EXAMPLE = ("the area of a square", "```python\na = s**2\n```\n$$A = s^2$$")
"""A subject, and the answer that shows the form."""
NO_SYSTEM = {"role": "system", "content": ""}
"""Keeps the template from adding its own system message, and prompts short."""


def user(wording: str, subject: str) -> dict[str, str]:
    return {"role": "user", "content": wording.format(subject)}


def rows(domain: str, wording: str) -> list[dict[str, object]]:
    """One prompt of a single turn for each subject."""
    return [
        {"id": f"{domain}-{n:02}", "messages": [user(wording, subject)], "domain": domain}
        for n, subject in enumerate(SUBJECTS[domain], start=1)
    ]


def mixed() -> list[dict[str, object]]:
    """One prompt after an example for each quantity."""
    subject, answer = EXAMPLE
    before = [NO_SYSTEM, user(BOTH, subject), {"role": "assistant", "content": answer}]
    return [
        {"id": f"mixed-{n:02}", "messages": [*before, user(BOTH, quantity)], "domain": "mixed"}
        for n, quantity in enumerate(SUBJECTS["quantities"], start=1)
    ]


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    sets = {
        name: [row for domain, wording in domains.items() for row in rows(domain, wording)]
        for name, domains in SETS.items()
    }
    for name, made in {**sets, "mixed": mixed()}.items():
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in made)
        (FOLDER / f"{name}.jsonl").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
