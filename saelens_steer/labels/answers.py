"""Cached answers of servers and sites, so that nothing is asked twice."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saelens_steer.files import digest, write_json


@dataclass(frozen=True)
class Answers:
    """A folder with one file per question: its text, its answer, and whether that was readable."""

    folder: Path | None
    """None: nothing is cached."""

    def find(self, question: Mapping[str, Any]) -> dict[str, Any] | None:
        """The cached answer; None without one, or if it was unreadable."""
        if self.folder is None:
            return None
        try:
            kept = json.loads(self._file(self.folder, question).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        found = isinstance(kept, dict) and kept.get("question") == question and kept.get("read")
        return kept["answer"] if found else None

    def keep(self, question: Mapping[str, Any], answer: Mapping[str, Any], read: bool) -> None:
        """Cache an answer. An unreadable one is kept only for inspection; it is asked again."""
        if self.folder is not None:
            kept = {"question": question, "answer": answer, "read": read}
            write_json(self._file(self.folder, question), kept)

    def _file(self, folder: Path, question: Mapping[str, Any]) -> Path:
        return folder / f"{digest(question)}.json"
