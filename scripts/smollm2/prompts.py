"""Write the prompts on which the study of SmolLM2 selects features and measures damage:
`python -m scripts.smollm2.prompts` writes configs/smollm2/selection.jsonl and others.jsonl."""

from __future__ import annotations

import json
from pathlib import Path

from scripts.smollm2.topics import CODE, MATHEMATICS, OTHERS, PROSE, lines

FOLDER = Path(__file__).parents[2] / "configs" / "smollm2"
SELECTION = {
    "code": ("Write Python code to {}.", CODE),
    "math": ("State {} as a formula.", MATHEMATICS),
    "prose": ("Write a paragraph about {}.", PROSE),
}
"""Domain → its wording and subjects."""
OTHER_WORDINGS = {
    "facts": "Tell me about {}.",
    "advice": "Give me advice on {}.",
    "lists": "Name {}.",
    "dialogue": "Write a short dialogue between {}.",
}


def rows(domain: str, wording: str, subjects: str) -> list[dict[str, object]]:
    """One prompt of a single turn for each subject."""
    return [
        {
            "id": f"{domain}-{number:02}",
            "messages": [{"role": "user", "content": wording.format(subject)}],
            "domain": domain,
        }
        for number, subject in enumerate(lines(subjects), start=1)
    ]


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    others = {name: (OTHER_WORDINGS[name], subjects) for name, subjects in OTHERS.items()}
    for file, domains in (("selection", SELECTION), ("others", others)):
        made = [
            row for name, (ask, subjects) in domains.items() for row in rows(name, ask, subjects)
        ]
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in made)
        (FOLDER / f"{file}.jsonl").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
