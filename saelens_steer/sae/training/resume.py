"""Checkpoints to resume a stopped training from: SAELens's own, and our runner's state."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from saelens_steer.files import digest, inside, remove, write_json

STATE = "saelens_steer.json"
"""Written last into a checkpoint: one without it is not whole."""
PER_TRAINING = 10


def checkpoint_folder(out: Path, *made_from: object) -> Path:
    """The folder for checkpoints of the SAE `out`; those of other settings are removed."""
    folder = _all_of(out)
    own = inside(out.parent, f"{folder.name}/{digest(*made_from)}")
    for other in folder.glob("*"):
        if other != own:
            remove(other)
    return own


def remove_checkpoints(out: Path) -> None:
    """Remove all checkpoints of the SAE `out`."""
    remove(_all_of(out))


def _all_of(out: Path) -> Path:
    return out.with_name(f"{out.name}-checkpoints")


def texts_digest(texts: Iterable[str]) -> str:
    """sha256 (first 16 hex digits) of texts in their order."""
    sha = hashlib.sha256()
    for text in texts:
        sha.update(f"{len(text)} ".encode() + text.encode())
    return sha.hexdigest()[:16]


def latest(folder: Path) -> Path | None:
    """The whole checkpoint of the most tokens, if there is any."""
    whole = (path.parent for path in folder.rglob(STATE))
    return max(whole, key=lambda path: int(read_state(path)["tokens"]), default=None)


def keep_state(checkpoint: Path, state: dict[str, Any]) -> None:
    """Finish a checkpoint, and remove the ones before it."""
    write_json(checkpoint / STATE, state)
    own = checkpoint.parents[1]
    for other in own.glob("*/*"):
        if other != checkpoint:
            remove(inside(own, str(other.relative_to(own))))


def read_state(checkpoint: Path) -> dict[str, Any]:
    """What `keep_state` wrote."""
    return json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
