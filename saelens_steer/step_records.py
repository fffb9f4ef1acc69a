"""What the steps of a run folder wrote: files with their digests, kept as one record per step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

from saelens_steer.errors import InputError
from saelens_steer.files import inside
from saelens_steer.sealed import content_digest, unsealed, write_sealed

STATE = ".steps"
"""The folder of the records."""
Digests = dict[str, str]
"""A file's name in the run folder → the digest of what a step wrote into it."""


@dataclass(frozen=True)
class StepRecord:
    """What a run folder knows about a step."""

    key: str | None = None
    """The digest of its name and inputs; None if it is unfinished or stale."""
    files: Digests = field(default_factory=dict)
    """The files of these inputs."""
    stale: Digests = field(default_factory=dict)
    """Files of earlier inputs that it has not written anew."""

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing that could become stale."""
        return self.key is None and not self.files

    @classmethod
    def of(cls, content: dict[str, Any]) -> StepRecord:
        """The record with this content. Raises ValueError if it is none."""
        try:
            found = cls(content["key"], content["files"], content["stale"])
            texts = chain(*found.files.items(), *found.stale.items())
            if all(isinstance(each, str) for each in (found.key or "", *texts)):
                return found
        except (LookupError, TypeError, AttributeError):
            pass
        raise ValueError("it is not the record of a step")


@lru_cache(maxsize=128)
def _record(text: str) -> StepRecord:
    """The record in a file's text, parsed once per text, so that it is never an old one."""
    return StepRecord.of(unsealed(text))


@dataclass(frozen=True)
class StepRecords:
    """The records of a run folder, in a folder of their own inside it."""

    root: Path

    @property
    def folder(self) -> Path:
        return self.path("").parent

    def path(self, step: str) -> Path:
        return inside(self.root, f"{STATE}/{step}.json")

    def steps(self, prefix: str = "") -> list[str]:
        """The recorded steps whose names start with `prefix`."""
        return sorted(p.stem for p in self.folder.glob(f"{prefix}*.json"))

    def __getitem__(self, step: str) -> StepRecord:
        """What is known about a step. Raises InputError if its record is damaged."""
        return self._read(self.path(step))

    def _read(self, path: Path) -> StepRecord:
        if not path.exists():
            return StepRecord()
        try:
            return _record(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise InputError(
                f"{path} is damaged: use a new folder, or delete this file and move its step's "
                "files elsewhere"
            ) from None

    def __setitem__(self, step: str, record: StepRecord) -> None:
        write_sealed(self.path(step), asdict(record))

    def settled(self, step: str) -> StepRecord:
        """A step's record without earlier digests of files that are there anew.

        A file may still be an old one: a kill came before it was replaced, and then the step wrote
        another of its files.
        """
        record, stale = self[step], Digests()
        for file, old in record.stale.items():
            new = record.files.get(file)
            if new is None or (old != new and content_digest(inside(self.root, file)) == old):
                stale[file] = old
        return replace(record, stale=stale)

    def key_of(self, step: str) -> str | None:
        """A step's key; None also if its record is damaged."""
        try:
            return self[step].key
        except InputError:
            return None

    def __iter__(self) -> Iterator[StepRecord]:
        return map(self._read, sorted(self.folder.glob("*.json")))

    def known(self) -> dict[str, set[str]]:
        """Every file that a step wrote → the digests of what any step wrote into it."""
        known: dict[str, set[str]] = {}
        for record in self:
            for file, found in (*record.files.items(), *record.stale.items()):
                known.setdefault(file, set()).add(found)
        return known

    def damaged(
        self, step: str, among: Callable[[Iterable[str]], Iterable[str]] = list
    ) -> list[str]:
        """The files of a finished step, those `among` chooses, that are not as it wrote them."""
        record = self[step]
        files = among(record.files) if record.key else ()
        now = {file: content_digest(inside(self.root, file)) for file in files}
        return [file for file, found in now.items() if found != record.files[file]]
