"""Steps of a run folder: done once, done again when an input changed, never served stale."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from saelens_steer.errors import InputError
from saelens_steer.files import digest, inside, remove, remove_leftovers, write_json

STATE = ".steps"


class RunFolder:
    """A run folder, and its memory of which step made which files from which inputs."""

    def __init__(
        self, root: str | Path, dependants: Callable[[str], Iterable[str]] = lambda _: ()
    ) -> None:
        """`dependants` names the steps made from a step: they go when it is done again."""
        self.root = Path(root)
        self.dependants = dependants
        self._left_open: set[str] = set()
        if self.root.exists() and not self.root.is_dir():
            raise InputError(f"{self.root} is a file: --out must be a folder")

    def check_own(self) -> None:
        """Raise InputError for a folder that holds something else than a run, or a damaged one."""
        if self.root.is_dir() and any(self.root.iterdir()) and not self.path(STATE).is_dir():
            raise InputError(
                f"{self.root} is not empty and holds no run: give --out a folder of its own"
            )
        for name in self.names(""):
            self.made(name)

    def mark(self) -> None:
        """Make the folder a run folder, and clear what a killed run left half-written."""
        remove_leftovers(self.root)
        write_json(self._state("run"), {"made_by": "saelens_steer"})

    def path(self, name: str) -> Path:
        """A place inside the run folder. InputError for a name that leads out of it."""
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

        Returns the step's key, a digest of name and inputs, for later steps to depend on. Before
        `make` runs the old claim is withdrawn, so that a killed step is never taken for done.
        `derived`: files later made from the outputs, deleted together with them.
        """
        inputs, outputs = list(inputs), list(outputs)
        key = digest(name, *inputs)
        if not self.is_done(name, inputs, outputs):
            self._forget((name, *self.dependants(name)), (*outputs, *derived))
            # no claim yet, but a record of what a killed step may leave behind
            write_json(self._state(name), {"key": None, "outputs": [*outputs, *derived]})
            make()
            claim = None if name in self._left_open else key
            write_json(self._state(name), {"key": claim, "outputs": [*outputs, *derived]})
        return key

    def leave_open(self, name: str) -> None:
        """Let a step that cannot finish be done again the next time; what it makes stays."""
        self._left_open.add(name)
        write_json(self._state(name), {**self._known(name), "key": None})

    def is_open(self, name: str) -> bool:
        """Whether a step could not finish."""
        return self._known(name).get("key", "") is None

    def is_current(self, name: str, inputs: Iterable[object]) -> bool:
        """Whether this step was last done from these inputs."""
        return self._known(name).get("key") == digest(name, *inputs)

    def is_done(self, name: str, inputs: Iterable[object], outputs: Iterable[str]) -> bool:
        """Whether the step is current and all its outputs exist."""
        made = all(self.path(output).exists() for output in outputs)
        return made and self.is_current(name, inputs)

    def names(self, prefix: str) -> list[str]:
        """The steps done so far whose names begin so."""
        return sorted(p.stem for p in self.path(STATE).glob(f"{prefix}*.json"))

    def drop(self, name: str, also: Iterable[str] = ()) -> None:
        """Remove what a step made, whole or in part, and what was made from it: it is no longer
        asked for. `also`: what may lie beside it."""
        there = self._state(name).exists()
        self._forget((name, *self.dependants(name)) if there else (), also)

    def made(self, name: str) -> list[str]:
        """What a step noted that it made. InputError where that could not be removed safely."""
        outputs, state = self._known(name).get("outputs", []), self._state(name)
        try:
            if not isinstance(outputs, list) or not all(isinstance(one, str) for one in outputs):
                raise InputError("its outputs are no list of names")
            for output in outputs:
                self._removable(output)
        except InputError as error:
            raise InputError(f"{state} is damaged ({error}): delete it and run again") from None
        return outputs

    def _removable(self, output: str) -> Path:
        """The place of an output, which is never the memory of the steps."""
        path = self.path(output)
        real = (path.parent.resolve() / path.name).relative_to(self.root.resolve())
        if real.parts[0].casefold() == STATE:
            raise InputError(f"{output!r} belongs to the memory of the steps")
        return path

    def _state(self, name: str) -> Path:
        return self.path(f"{STATE}/{name}.json")

    def _known(self, name: str) -> dict[str, Any]:
        try:
            known = json.loads(self._state(name).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        return known if isinstance(known, dict) else {}

    def _forget(self, steps: Iterable[str], outputs: Iterable[str]) -> None:
        """Withdraw claims and what was made under them: a folder never mixes two runs."""
        made = [(self._state(name), self.made(name)) for name in steps]
        asked = [self._removable(output) for output in outputs]  # all is checked, then removed
        for state, own in made:  # the claims first; what they list stays known until it is gone
            if state.exists():
                write_json(state, {"key": None, "outputs": own})
        for state, own in made:
            for output in own:
                remove(self.path(output))
            remove(state)
        for path in asked:
            remove(path)
