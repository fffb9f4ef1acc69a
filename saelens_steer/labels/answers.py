"""Kept answers of servers and sites, so that nothing is asked twice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saelens_steer.files import digest
from saelens_steer.progress import say
from saelens_steer.sealed import read_sealed, write_sealed


@dataclass(frozen=True)
class Answers:
    """A folder with one file per question: its text, its answer, and the answer's status."""

    folder: Path | None
    """None: nothing is kept."""

    def find(self, question: Mapping[str, Any]) -> dict[str, Any] | None:
        """The kept answer, readable or not; None without one, or if its file is damaged."""
        if self.folder is None or not (file := self._file(self.folder, question)).exists():
            return None
        try:
            kept = read_sealed(file)
            if kept["question"] == question:
                return kept["answer"]
        except (OSError, ValueError, LookupError):
            pass
        say(f"{file} is damaged: asking again")
        return None

    def keep(self, question: Mapping[str, Any], answer: Mapping[str, Any], status: str) -> None:
        """Keep an answer. `status`: read, or the reason why it has no use, such as unreadable."""
        if self.folder is not None:
            kept = {"question": question, "answer": answer, "status": status}
            write_sealed(self._file(self.folder, question), kept)

    def _file(self, folder: Path, question: Mapping[str, Any]) -> Path:
        return folder / f"{digest(question)}.json"
