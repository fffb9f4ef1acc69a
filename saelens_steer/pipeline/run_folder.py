"""The steps of a run folder: each runs once, and again when an input changes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from saelens_steer.errors import InputError
from saelens_steer.files import digest, inside, remove, remove_leftovers, write_json

STATE = ".steps"


class RunFolder:
    """A run folder, and its record of which step made which files from which inputs."""

    def __init__(
        self, root: str | Path, dependants: Callable[[str], Iterable[str]] = lambda _: ()
    ) -> None:
        """`dependants` names the steps that depend on a step; their files go when it reruns."""
        self.root = Path(root)
        self.dependants = dependants
        self._unfinished: set[str] = set()
        if self.root.exists() and not self.root.is_dir():
            raise InputError(f"{self.root} is a file: --out must be a folder")

    def check(self) -> None:
        """Raise InputError if the folder holds anything but a run, or its records are damaged."""
        if self.root.is_dir() and any(self.root.iterdir()) and not self.path(STATE).is_dir():
            raise InputError(
                f"{self.root} is not empty and holds no run: give --out an empty or new folder"
            )
        for name in self.steps(""):
            self.outputs(name)

    def mark(self) -> None:
        """Make the folder a run folder, and remove the half-written files of a killed run."""
        remove_leftovers(self.root)
        write_json(self._state("run"), {"made_by": "saelens_steer"})

    def path(self, name: str) -> Path:
        """A path inside the run folder. Raises InputError for a name that leads out of it."""
        return inside(self.root, name)

    def do(
        self,
        name: str,
        inputs: Iterable[object],
        outputs: Iterable[str],
        make: Callable[[], object],
        derived: Iterable[str] = (),
    ) -> str:
        """Run `make` unless this step already made `outputs` from the same inputs.

        Returns the step's key, a digest of name and inputs, for later steps to depend on. The old
        key is withdrawn before `make` runs, so a killed step never counts as done. `derived` are
        files that others make from the outputs; they are deleted with them.
        """
        inputs, outputs = list(inputs), list(outputs)
        key = digest(name, *inputs)
        if not self.is_done(name, inputs, outputs):
            self._forget((name, *self.dependants(name)), (*outputs, *derived))
            # no key yet, but a record of the files that a killed step may leave
            write_json(self._state(name), {"key": None, "outputs": [*outputs, *derived]})
            make()
            kept = None if name in self._unfinished else key
            write_json(self._state(name), {"key": kept, "outputs": [*outputs, *derived]})
        return key

    def mark_unfinished(self, name: str) -> None:
        """Keep what a step has made, but run it again the next time."""
        self._unfinished.add(name)
        write_json(self._state(name), {**self._record(name), "key": None})

    def is_unfinished(self, name: str) -> bool:
        """Whether a step has run but could not finish."""
        return self._record(name).get("key", "") is None

    def is_current(self, name: str, inputs: Iterable[object]) -> bool:
        """Whether the step last ran on these inputs."""
        return self._record(name).get("key") == digest(name, *inputs)

    def is_done(self, name: str, inputs: Iterable[object], outputs: Iterable[str]) -> bool:
        """Whether the step is current and all its outputs exist."""
        there = all(self.path(output).exists() for output in outputs)
        return there and self.is_current(name, inputs)

    def steps(self, prefix: str) -> list[str]:
        """The recorded steps whose names start with `prefix`."""
        return sorted(p.stem for p in self.path(STATE).glob(f"{prefix}*.json"))

    def drop(self, name: str, leftovers: Iterable[str] = ()) -> None:
        """Remove everything that a step made, finished or not, with the steps that depend on it.

        `leftovers`: further paths to remove.
        """
        recorded = self._state(name).exists()
        self._forget((name, *self.dependants(name)) if recorded else (), leftovers)

    def outputs(self, name: str) -> list[str]:
        """The recorded outputs of a step. Raises InputError if they cannot be removed safely."""
        outputs, state = self._record(name).get("outputs", []), self._state(name)
        try:
            if not isinstance(outputs, list) or not all(isinstance(one, str) for one in outputs):
                raise InputError("its outputs are not a list of names")
            for output in outputs:
                self._removable(output)
        except InputError as error:
            raise InputError(f"{state} is damaged ({error}): delete it and run again") from None
        return outputs

    def _removable(self, output: str) -> Path:
        """The path of an output. Raises InputError if it lies among the records of the steps."""
        path = self.path(output)
        real = (path.parent.resolve() / path.name).relative_to(self.root.resolve())
        if real.parts[0].casefold() == STATE:
            raise InputError(f"{output!r} is a record of the steps, not an output")
        return path

    def _state(self, name: str) -> Path:
        return self.path(f"{STATE}/{name}.json")

    def _record(self, name: str) -> dict[str, Any]:
        try:
            record = json.loads(self._state(name).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        return record if isinstance(record, dict) else {}

    def _forget(self, steps: Iterable[str], outputs: Iterable[str]) -> None:
        """Withdraw the keys of steps and remove their files, so that no folder mixes two runs."""
        # Every path is checked before anything is removed. The keys are withdrawn first, and each
        # record lists its files until they are gone.
        recorded = [(self._state(name), self.outputs(name)) for name in steps]
        others = [self._removable(output) for output in outputs]
        for state, own in recorded:
            if state.exists():
                write_json(state, {"key": None, "outputs": own})
        for state, own in recorded:
            for output in own:
                remove(self.path(output))
            remove(state)
        for path in others:
            remove(path)
