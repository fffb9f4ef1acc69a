"""Write the prompts on which the study of SmolLM2 selects features and measures damage:
`python -m scripts.smollm2.prompts` writes configs/smollm2/selection.jsonl and others.jsonl."""

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


def rows(domain: str, wording: str) -> list[dict[str, object]]:
    """One prompt of a single turn for each subject."""
    return [
        {
            "id": f"{domain}-{number:02}",
            "messages": [{"role": "user", "content": wording.format(subject)}],
            "domain": domain,
        }
        for number, subject in enumerate(SUBJECTS[domain], start=1)
    ]


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, domains in SETS.items():
        made = [row for domain, wording in domains.items() for row in rows(domain, wording)]
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in made)
        (FOLDER / f"{name}.jsonl").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
