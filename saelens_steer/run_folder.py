"""A run folder: which step wrote which files from which inputs, and which of them are stale."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath

from saelens_steer.aside import free_name, say_aside
from saelens_steer.errors import InputError
from saelens_steer.files import (
    digest,
    files_in,
    inside,
    remove_leftovers,
    unwatched,
    watched,
)
from saelens_steer.numbers import count
from saelens_steer.progress import say
from saelens_steer.run_lock import check_unlocked, locked
from saelens_steer.sealed import content_digest
from saelens_steer.step_records import STATE, StepRecord, StepRecords

CONFIG, ABOUT = WRITTEN_ALWAYS = "config.yaml", "provenance.json"
RUN = "run"
"""The record of `WRITTEN_ALWAYS`."""
TRACEBACK = "traceback.txt"
"""The traceback of the last error that is nobody's input."""
HALVED = ".store/halved.json"
"""The sizes of batches that did not fit into memory."""
SAVED = "saved"
"""The key of RUN and of the sweep in a folder that `Result.save` wrote."""


class RunFolder:
    """A run folder, and its record of which step wrote which files from which inputs.

    It deletes no file. Files whose inputs have changed stay, but are listed as stale and never
    read; an edited file is renamed before a step writes its path; and a file that no step wrote is
    left alone, or refused if it is in the way.
    """

    def __init__(
        self, root: str | Path, dependants: Callable[[str], Iterable[str]] = lambda _: ()
    ) -> None:
        """`dependants` names the steps that depend on a step; its rerun makes them stale."""
        self.root = Path(root)
        self.records = StepRecords(self.root)
        self.dependants = dependants
        self._unfinished: set[str] = set()
        if self.root.exists() and not self.root.is_dir():
            raise InputError(f"{self.root} is a file: give a folder")

    def check(self) -> None:
        """Raise InputError if the folder holds anything but a run, or its records are damaged."""
        if self.root.is_dir() and any(self.root.iterdir()) and not self.path(STATE).is_dir():
            raise InputError(
                f"{self.root} is not empty and holds no run: give an empty or new folder"
            )
        self.stale()  # refuses recorded names that lead out of the folder
        self.check_places([HALVED, TRACEBACK, *self.records.known()])
        if self.root.is_dir():
            check_unlocked(self.root, self.records.folder)

    @property
    def is_saved(self) -> bool:
        """Whether the folder holds a result that `Result.save` wrote."""
        return SAVED in map(self.records.key_of, (RUN, "sweep"))

    def check_computed(self, instead: str) -> None:
        """Raise InputError, which says what to do instead, if a notebook saved the result."""
        if self.is_saved:
            raise InputError(
                f"{self.root} holds a result saved from a notebook, which no config reproduces: "
                f"{instead}"
            )

    def remedy(self, what: str = "it") -> str:
        """How to get back what was lost."""
        if self.is_saved:
            return f"save the result again from the notebook, or copy {what} back"
        return f"compute {what} again with saelens-steer run {self.root}/{CONFIG} --out {self.root}"

    def check_places(self, names: Iterable[str]) -> None:
        """Raise InputError if a folder is where a file belongs, or a file where a folder does.

        A name with a suffix is that of a file.
        """
        for part in map(PurePosixPath, names):
            for folder in (one for one in part.parents if one.name):
                if os.path.lexists(path := self.path(str(folder))) and not path.is_dir():
                    raise InputError(
                        f"{path} is a file, but a run keeps a folder there: move it elsewhere and "
                        "rerun"
                    )
            if part.suffix and (path := self.path(str(part))).is_dir():
                raise InputError(
                    f"{path} is a folder, but a run writes a file there: move it elsewhere and "
                    "rerun"
                )

    def check_free(self, outputs: Iterable[str]) -> None:
        """Raise InputError if something that no step wrote is in the way of these outputs."""
        self.check_places(outputs := [*outputs])
        # a folder may hold other files: `_before_writing` goes round them
        self._refuse_others(name for name in outputs if not self.path(name).is_dir())

    def locked(self) -> AbstractContextManager[None]:
        """Keep other processes out of the folder; see `run_lock.locked`."""
        return locked(self.root, self.records.folder)

    def mark(self) -> None:
        """Make the folder a run folder, and remove the half-written files of a killed run.

        A step of which a file is missing or changed becomes stale, so that it runs again.
        """
        remove_leftovers(self.root)
        self.records[RUN] = self.records[RUN]
        for name in self.records.steps():
            if name != RUN and (lost := self.records.damaged(name)):
                more = f" and {len(lost) - 1:,} more are" if len(lost) > 1 else " is"
                say(f"{lost[0]}{more} missing or changed: running the step {name} again")
                self.drop(name)

    def path(self, name: str) -> Path:
        """A path inside the run folder. Raises InputError for a name that leads out of it."""
        return inside(self.root, name)

    def current(self, name: str) -> Path:
        """The path to read a file or folder from; nothing is there if it is missing or stale.

        Raises InputError if it is not as its step wrote it.
        """

        def among(files: Iterable[str]) -> list[str]:
            return [file for file in files if file == name or file.startswith(f"{name}/")]

        made, old = self._files()
        if among(old) and not among(made):
            return self.path(f"{STATE}/stale/{name}")
        lost = [f for step in self.records.steps() for f in self.records.damaged(step, among)]
        if lost:
            raise InputError(
                f"{self.path(lost[0])} is missing or was changed after the run: {self.remedy()}"
            )
        return self.path(name)

    def has(self, name: str) -> bool:
        """Whether a file or folder is there, as its step wrote it from the present config."""
        try:
            return self.current(name).exists()
        except InputError:
            return False

    def stale(self) -> list[str]:
        """The files that stay from an earlier config, because no step has written them anew."""
        return sorted(file for file in self._files()[1] if os.path.lexists(self.path(file)))

    def say_stale(self) -> None:
        """Print one line that names the stale files, and one for renamed ones, if there are any."""
        stale = self.stale()
        shown = [
            f"{head}/ ({count(n, 'file')})" if self.path(head).is_dir() else head
            for head, n in Counter(file.partition("/")[0] for file in stale).items()
        ]
        if shown:
            size = sum(self.path(file).lstat().st_size for file in stale) / 1e6
            say(
                f"kept from an earlier config, not part of this run: {', '.join(shown)} "
                f"({size:,.1f} MB in all)"
            )
        say_aside(self.root.rglob("*"))

    def do(
        self,
        name: str,
        inputs: Iterable[object],
        outputs: Iterable[str],
        make: Callable[[], object],
    ) -> str:
        """Run `make` unless this step already made `outputs` from the same inputs.

        Returns the step's key, a digest of name and inputs, for later steps to depend on. The old
        key is withdrawn before `make` runs, so a killed step never counts as done.
        """
        inputs, outputs = list(inputs), list(outputs)
        key = digest(name, *inputs)
        if not self.is_done(name, inputs, outputs):
            self.check_free(outputs)
            self.withdraw((*self.dependants(name), name))
            with self.writing(name):
                make()
            kept = None if name in self._unfinished else key
            self.records[name] = replace(self.records[name], key=kept)
        return key

    def withdraw(self, steps: Iterable[str]) -> None:
        """Make the output of these steps stale: dependants first, since a kill may come between."""
        for name in steps:
            if not (old := self.records[name]).is_empty:
                both = {f: d for f, d in old.stale.items() if f in old.files}
                unwritten = {f: d for f, d in both.items() if content_digest(self.path(f)) == d}
                self.records[name] = StepRecord(stale={**old.stale, **old.files, **unwritten})

    def drop(self, name: str) -> None:
        """Make the output of a step and of all that depends on it stale, if there is any."""
        if not self.records[name].is_empty:
            self.withdraw((*self.dependants(name), name))

    @contextlib.contextmanager
    def writing(self, name: str, key: str | None = None) -> Iterator[None]:
        """Record the files written inside the context as those of a step, which gets this key."""
        with watched(partial(self._before_writing, name)):
            yield
        record = self.records.settled(name)
        self.records[name] = replace(record, key=key or record.key)

    def mark_unfinished(self, name: str) -> None:
        """Keep what a step has made, but run it again the next time."""
        self._unfinished.add(name)
        self.records[name] = replace(self.records[name], key=None)

    def is_unfinished(self, name: str) -> bool:
        """Whether a step has run but could not finish."""
        record = self.records[name]
        return record.key is None and bool(record.files)

    def is_current(self, name: str, inputs: Iterable[object]) -> bool:
        """Whether the step last ran on these inputs."""
        return self.records[name].key == digest(name, *inputs)

    def is_done(self, name: str, inputs: Iterable[object], outputs: Iterable[str]) -> bool:
        """Whether the step is current and all its outputs are there as it wrote them."""
        return self.is_current(name, inputs) and all(map(self.has, outputs))

    def _files(self) -> tuple[set[str], set[str]]:
        """The files of the steps' present inputs, and all other files that they wrote."""
        records = self.records
        made = {file for record in records for file in record.files}
        return made, {file for record in records for file in record.stale} - made

    def _name(self, path: Path) -> str | None:
        """The name of a visible path in the run folder; None for any other."""
        path, root = path.parent.resolve() / path.name, self.root.resolve()
        parts = path.relative_to(root).parts if path.is_relative_to(root) else (".",)
        return None if any(part.startswith(".") for part in parts) else "/".join(parts)

    def _refuse_others(self, names: Iterable[str]) -> None:
        """Raise InputError if there is something at one of these paths that no step wrote."""
        known, others = self.records.known(), list[str]()
        for name in names:
            path = self.path(name)
            files = [f"{name}/{f.relative_to(path)}" if f != path else name for f in files_in(path)]
            others += files if not known.keys() & {*files} else []
        if others:
            them = "them" if len(others) > 1 else "it"
            more = f" and {count(len(others) - 3, 'more file')}" if len(others) > 3 else ""
            raise InputError(
                f"{self.root} holds {', '.join(others[:3])}{more}, which this run did not write "
                f"but has to replace: move {them} elsewhere and rerun"
            )

    def _before_writing(self, step: str, path: Path, temporary: Path | None) -> list[Path]:
        """Record what a step is about to write, and make way for it; see `files.watched`."""
        name = self._name(path)
        if name is None:
            return unwatched(path, temporary)
        if temporary is None:
            self.check_places([name])
            self._refuse_others([name])
            return []
        parts = {file: file.relative_to(temporary) for file in files_in(temporary)}
        self.check_places(PurePosixPath(name, part).as_posix() for part in parts.values())
        known, aside, kept = self.records.known(), free_name(path, "edited"), list[Path]()
        for old in files_in(path):
            part = old.relative_to(path)
            file = PurePosixPath(name, part).as_posix()
            if content_digest(old) in known.get(file, ()):
                continue
            if file in known or os.path.lexists(temporary / part):
                (aside / part).parent.mkdir(parents=True, exist_ok=True)
                shutil.move(old, aside / part)
                say(f"{path / part} was edited: your version is kept as {aside / part}")
            else:
                kept.append(old)
        new = {
            PurePosixPath(name, part).as_posix(): str(content_digest(file))
            for file, part in parts.items()
        }
        one = self.records[step]
        before = {file: d for file, d in one.files.items() if file in new}  # known until replaced
        self.records[step] = replace(one, files={**one.files, **new}, stale={**one.stale, **before})
        return kept
