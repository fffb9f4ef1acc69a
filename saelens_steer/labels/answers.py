"""Answers of servers and sites, kept so that nothing is asked twice."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saelens_steer.files import digest, write_json


@dataclass(frozen=True)
class Answers:
    """A folder with one file per question: the question, the answer, and whether it was read."""

    folder: Path | None
    """None: nothing is kept."""

    def find(self, question: Mapping[str, Any]) -> dict[str, Any] | None:
        """The kept answer; None if there is none, or none that could be read."""
        if self.folder is None:
            return None
        try:
            kept = json.loads(self._file(self.folder, question).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        usable = isinstance(kept, dict) and kept.get("question") == question
        return kept["answer"] if usable and kept.get("read") else None

    def keep(self, question: Mapping[str, Any], answer: Mapping[str, Any], read: bool) -> None:
        """Keep an answer. One that could not be read is kept for inspection, and asked again."""
        if self.folder is not None:
            kept = {"question": question, "answer": answer, "read": read}
            write_json(self._file(self.folder, question), kept)

    def _file(self, folder: Path, question: Mapping[str, Any]) -> Path:
        return folder / f"{digest(question)}.json"
