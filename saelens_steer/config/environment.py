"""Checks of specs against what is installed, saved and set on this machine. Import no torch."""

from __future__ import annotations

import difflib
import os
from importlib.util import find_spec
from pathlib import Path

from saelens_steer.config.labels import LabelSpec, ServerSpec
from saelens_steer.config.sae import TrainSpec
from saelens_steer.errors import InputError, is_there, or_known
from saelens_steer.installed import HUB_ID, sae_releases, training_architectures

OURS = ("d_in", "d_sae", "device", "metadata")
"""Fields of SAELens's configs that are not options: the model, d_sae and the training set them."""


def check_architecture(spec: TrainSpec) -> None:
    """Raise InputError unless SAELens knows the architecture and each of its options."""
    known = training_architectures()
    if spec.architecture not in known:
        hint = or_known(spec.architecture, known)
        raise InputError(f"SAELens has no training architecture {spec.architecture!r}; {hint}")
    fields = known[spec.architecture]
    for option in spec.options:
        if option in OURS:
            raise InputError(f"option {option!r} is set for you: leave it out of options")
        if option not in fields:
            hint = or_known(option, fields)
            raise InputError(f"architecture {spec.architecture} has no option {option!r}; {hint}")
    if "k" in fields and "k" not in spec.options:
        raise InputError(
            f"architecture {spec.architecture} needs options: {{k: …}}, the number of features "
            "active per token"
        )
    k = spec.options.get("k", 1)
    if not (isinstance(k, int | float) and 0 < k <= spec.d_sae):
        raise InputError(f"option k must be a number up to d_sae = {spec.d_sae}, not {k!r}")


def check_sae_source(source: str, sae_id: str | None) -> None:
    """Raise InputError for a source that is neither here, nor in SAELens's directory, nor a hub id.

    Also for an id that its release does not have, and for one beside a folder or file.
    """
    if is_there(source):
        if sae_id is not None:
            local = Path(source).expanduser()
            kind = "folder" if local.is_dir() else "file"
            raise InputError(
                f"{local} is a {kind}, and a {kind} may hold only one SAE: leave out sae_id"
            )
        return
    releases = sae_releases()
    if source in releases:
        ids = sorted(releases[source].saes)
        if sae_id not in ids:
            near = difflib.get_close_matches(sae_id or "", ids, n=3, cutoff=0.3) or ids[:3]
            some = ", ".join(near)
            if sae_id is None:
                raise InputError(f"release {source} needs an sae_id; try {some}")
            raise InputError(f"release {source} has no sae_id {sae_id!r}; try {some}")
    elif not HUB_ID.fullmatch(source):
        near = difflib.get_close_matches(source, releases, n=3, cutoff=0.5)
        hint = f"; SAELens has {', '.join(near)}" if near else ""
        raise InputError(
            f"{source!r} is not an existing file or folder, a SAELens release, or a hub repository "
            f"(owner/name){hint}"
        )


def check_loggers(tensorboard: bool) -> None:
    """Raise InputError if TensorBoard is wanted but not installed."""
    if tensorboard and find_spec("tensorboard") is None:
        raise InputError(
            "TensorBoard is not installed: pip install 'saelens-steer[tensorboard]', or turn off "
            "tensorboard (sae.log.tensorboard)"
        )


def check_labeller(spec: LabelSpec) -> None:
    """Raise InputError if the provider needs a client that is not installed, or an unset key."""
    if spec.server is None:
        return
    if find_spec("openai") is None:
        raise InputError(
            "label.provider: openai-compatible needs the client: pip install 'saelens-steer[label]'"
        )
    key_of(spec.server)


def key_of(spec: ServerSpec) -> str | None:
    """The key from the environment variable `key_env`. Raises InputError if it holds no key."""
    if spec.key_env is None:
        return None
    key = os.environ.get(spec.key_env, "").strip()
    if not key:
        raise InputError(
            f"label.server.key_env: the environment variable {spec.key_env} is not set: export it"
        )
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise InputError(
            f"label.server.key_env: {spec.key_env} does not hold a key: a key is printable ASCII "
            "without spaces"
        )
    return key
