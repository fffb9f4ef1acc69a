"""Checkpoints to resume an interrupted training: SAELens's own plus our runner's state."""

from __future__ import annotations

import contextlib
import hashlib
import re
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
    own = inside(out.parent, f"{out.name}-checkpoints/{digest(*made_from)}")
    remove_checkpoints(out, own)
    return own


def remove_checkpoints(out: Path, but: Path | None = None) -> None:
    """Delete the checkpoints of the SAE saved to `out`, and nothing else that lies beside them."""
    folder = out.with_name(f"{out.name}-checkpoints")
    for found in folder.glob("*"):
        if found != but and re.fullmatch("[0-9a-f]{16}", found.name):
            remove(found)
    with contextlib.suppress(OSError):  # there is none, or something is left in it
        folder.rmdir()


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
