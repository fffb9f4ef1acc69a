"""Steps of a run folder: done once, done again when an input changed, never served stale."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

from saelens_steer.errors import InputError
from saelens_steer.files import digest, remove, write_json

STATE = ".steps"


class Steps:
    """The run folder's memory of which step made which files from which inputs."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if self.folder.exists() and not self.folder.is_dir():
            raise InputError(f"{self.folder} is a file: --out must be a folder")

    def path(self, name: str) -> Path:
        """A place inside the run folder."""
        return self.folder / name

    def do(
        self,
        name: str,
        inputs: Iterable[object],
        outputs: Iterable[str],
        make: Callable[[], object],
    ) -> str:
        """Run `make` unless this step already made `outputs` from the same inputs.

        Returns the step's key, a digest of name and inputs, for later steps to depend on. Before
        `make` runs the old claim is withdrawn, so that a killed step is never taken for done.
        """
        key, outputs = digest(name, *inputs), list(outputs)
        state = self.path(STATE) / f"{name}.json"
        if not self._is_done(state, key, outputs):
            remove(state)
            for output in outputs:
                remove(self.path(output))
            make()
            write_json(state, {"key": key, "outputs": outputs})
        return key

    def _is_done(self, state: Path, key: str, outputs: list[str]) -> bool:
        try:
            known = json.loads(state.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        made = isinstance(known, dict) and known.get("key") == key
        return made and all(self.path(o).exists() for o in outputs)
