"""Files of one SAE out of a Hugging Face repository, or out of the cache."""

from __future__ import annotations

import glob
import re
from pathlib import Path, PurePosixPath

from huggingface_hub import errors as hub
from huggingface_hub import snapshot_download

from saelens_steer.errors import InputError
from saelens_steer.sae.checkpoint import SIDECARS, SUFFIXES

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
REASONS = (
    (hub.GatedRepoError, "it is gated: accept its terms on the hub and set HF_TOKEN"),
    (
        hub.RepositoryNotFoundError,
        "the hub has no such repository: check the name, or set HF_TOKEN",
    ),
    (
        hub.LocalEntryNotFoundError,
        "it is not in the cache, and the hub cannot be reached: go online (HF_HUB_OFFLINE=0)",
    ),
)
"""The most special error first."""


def from_hub(repository: str, inside: str | None) -> Path:
    """The local file or folder of one SAE: `inside` the repository, or its top where None.

    Only that folder is downloaded, and of it weights and settings. Raises InputError.
    """
    part = PurePosixPath(inside or ".")
    if part.is_absolute() or ".." in part.parts:
        raise InputError(f"sae_id must name a folder or file in {repository}, not {inside!r}")
    wanted = _patterns(part)
    deeper = glob.escape(f"{part}/") * (str(part) != ".") + "*/*"
    try:
        snapshot = snapshot_download(repository, allow_patterns=wanted, ignore_patterns=deeper)
    except Exception as error:  # hub, network and disk each have their own, none in common
        raise InputError(f"cannot load {repository} as an SAE: {_why(error)}") from None
    found = Path(snapshot) / part
    if not found.exists():
        raise InputError(
            f"{repository} has no {part} (in the cache, if the hub cannot be reached): "
            "give a folder or a file of it as sae_id"
        )
    return found


def _patterns(part: PurePosixPath) -> list[str]:
    """The file and the settings beside it, or the weights and settings of a folder."""
    if part.suffix in SUFFIXES:
        names = [part, *(part.parent / name for name in SIDECARS)]
        return [glob.escape(str(name)) for name in names]
    folder = "" if str(part) == "." else glob.escape(f"{part}/")
    return [f"{folder}*{suffix}" for suffix in (*SUFFIXES, ".json")]


def _why(error: Exception) -> str:
    known = (reason for kind, reason in REASONS if isinstance(error, kind))
    return next(known, " ".join(str(error).split())[:200] or repr(error))
