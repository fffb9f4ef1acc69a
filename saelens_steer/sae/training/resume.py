"""Checkpoints of a training that may be stopped: SAELens's own, and what our runner adds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from saelens_steer.files import digest, remove, write_json

STATE = "saelens_steer.json"
"""Written last into a checkpoint: one without it is not whole."""
PER_TRAINING = 10


def checkpoint_folder(out: Path, *made_from: object) -> Path:
    """Where checkpoints of the SAE `out` lie; those of other settings are removed."""
    folder = out.with_name(f"{out.name}-checkpoints")
    own = folder / digest(*made_from)
    for other in folder.glob("*"):
        if other != own:
            remove(other)
    return own


def latest(folder: Path) -> Path | None:
    """The whole checkpoint of the most tokens, if there is any."""
    return max(
        (path.parent for path in folder.rglob(STATE)), key=lambda p: _tokens(p), default=None
    )


def keep_state(checkpoint: Path, state: dict[str, Any]) -> None:
    """Finish a checkpoint, and remove the ones before it."""
    write_json(checkpoint / STATE, state)
    for other in checkpoint.parents[1].glob("*/*"):
        if other != checkpoint:
            remove(other)


def read_state(checkpoint: Path) -> dict[str, Any]:
    """What `keep_state` wrote."""
    return json.loads((checkpoint / STATE).read_text(encoding="utf-8"))


def _tokens(checkpoint: Path) -> int:
    return int(read_state(checkpoint)["tokens"])
