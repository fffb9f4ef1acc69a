"""Answers on disk, by the hash of their questions: what was answered is not asked again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saelens_steer.files import digest, write_json


@dataclass(frozen=True)
class Answers:
    """A folder with a file for each question: the question, the answer, what it took."""

    folder: Path | None
    """None: nothing is kept."""

    def find(self, question: Mapping[str, Any]) -> dict[str, Any] | None:
        """The kept answer; None where there is none, or none that could be used."""
        if self.folder is None:
            return None
        try:
            kept = json.loads((self.folder / _name(question)).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        usable = isinstance(kept, dict) and kept.get("question") == question
        return kept["answer"] if usable and kept.get("read") else None

    def keep(self, question: Mapping[str, Any], answer: Mapping[str, Any], read: bool) -> None:
        """Keep an answer. One that could not be read is kept to be looked at, and asked again."""
        if self.folder is not None:
            kept = {"question": question, "answer": answer, "read": read}
            write_json(self.folder / _name(question), kept)


def _name(question: Mapping[str, Any]) -> str:
    return f"{digest(question)}.json"
