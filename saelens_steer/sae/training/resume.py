"""Checkpoints to resume an interrupted training: SAELens's own plus our runner's state."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from saelens_steer.files import digest, inside, read_json, remove, write_json

STATE = "saelens_steer.json"
"""Written last into a checkpoint, so one without it is incomplete."""
PER_TRAINING = 10
"""Checkpoints saved during a training; only the latest is kept."""


def checkpoint_folder(out: Path, *made_from: object) -> Path:
    """The checkpoint folder of the SAE saved to `out`; those of other settings are deleted."""
    folder = _checkpoints_of(out)
    own = inside(out.parent, f"{folder.name}/{digest(*made_from)}")
    for other in folder.glob("*"):
        if other != own:
            remove(other)
    return own


def remove_checkpoints(out: Path) -> None:
    """Delete all checkpoints of the SAE saved to `out`."""
    remove(_checkpoints_of(out))


def _checkpoints_of(out: Path) -> Path:
    return out.with_name(f"{out.name}-checkpoints")


def texts_digest(texts: Iterable[str]) -> str:
    """The first 16 hex digits of the SHA-256 of the texts, in order."""
    sha = hashlib.sha256()
    for text in texts:
        sha.update(f"{len(text)} ".encode() + text.encode())
    return sha.hexdigest()[:16]


def latest(folder: Path) -> Path | None:
    """The complete checkpoint with the most tokens, or None."""
    complete = (path.parent for path in folder.rglob(STATE))
    return max(complete, key=lambda path: int(read_json(path / STATE)["tokens"]), default=None)


def keep_state(checkpoint: Path, state: dict[str, Any]) -> None:
    """Complete a checkpoint with our runner's state, then delete all others."""
    write_json(checkpoint / STATE, state)
    own = checkpoint.parents[1]
    for other in own.glob("*/*"):
        if other != checkpoint:
            remove(inside(own, str(other.relative_to(own))))
