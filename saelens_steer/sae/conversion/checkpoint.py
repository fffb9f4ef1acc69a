"""Read a checkpoint's tensors and settings without running its code."""

from __future__ import annotations

import contextlib
import json
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError  # raised by torch.load; nothing is unpickled here
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from saelens_steer.errors import InputError, one_line
from saelens_steer.files import read_json

SUFFIXES = (".safetensors", ".npz", ".pt", ".pth", ".bin")
SIDECARS = ("config.json", "cfg.json", "hyperparams.json")
"""Settings files beside a checkpoint or in the folder above. Settings in the checkpoint take
precedence, then those beside it, in this order."""
STATES = ("state_dict", "model_state_dict", "sae_state_dict", "sae", "autoencoder", "model")
"""Keys of the state dict in a checkpoint that holds more than weights."""
PREFIX = re.compile(r"^(module|_orig_mod|sae|autoencoder|ae|model)\.")
NOT_SETTINGS = re.compile("optim|sched|rng")
NOT_AN_SAE = re.compile(r"sparsity|optimizer|scheduler|(activations_store|trainer|rank_\d+)_state")
"""Names of files that training writes beside an SAE."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint's content; names are in lower case, without prefixes like `module.`."""

    file: Path
    weights: dict[str, Tensor]
    """The state dict; single numbers are 0-d tensors."""
    beside: dict[str, Tensor]
    """Tensors, numbers and lists of numbers stored outside the state dict."""
    settings: dict[str, Any]
    """Strings, booleans and numbers of nested configs, under their own name and under
    `outer.inner`; the outermost takes precedence."""

    def stated(self, *keys: str) -> Any:
        """The setting under the first of these names that exists, or None."""
        return next((self.settings[key] for key in keys if key in self.settings), None)


def read_checkpoint(file: Path) -> Checkpoint:
    """The tensors and settings of a .safetensors or .npz file or a torch pickle of plain tensors.

    The content decides the format, not the suffix. Raises InputError if the file cannot be read
    without running code, or holds no named matrix.
    """
    content = _content(file)
    nested = [content[key] for key in STATES if isinstance(content.get(key), dict)]
    inner = next((c for c in nested if any(isinstance(v, Tensor) for v in c.values())), None)
    state, outer = (content, {}) if inner is None else (inner, content)
    weights = _tensors(state)
    if not any(weight.ndim >= 2 for weight in weights.values()):
        raise InputError(f"{file} holds no named matrix, so it is not an SAE")
    settings = _settings(content)
    for sidecar in settings_files(file):
        settings = _settings(_json(sidecar)) | settings
    return Checkpoint(file, weights, _tensors(outer), settings)


def settings_files(file: Path) -> list[Path]:
    """The settings files of a checkpoint: those beside it, then those in the folder above.

    Leaves out a model's config.json.
    """
    above = file.absolute().parent.parent
    names = [*(file.with_name(n) for n in (f"{file.stem}_cfg.json", *SIDECARS))]
    names += [above / name for name in SIDECARS]
    found = [path for path in names if path.is_file()]
    return [
        p for p in found if p.parent != above or not {"model_type", "architectures"} & {*_json(p)}
    ]


def checkpoint_in(folder: Path) -> Path:
    """The only checkpoint in a folder. Raises InputError if there is none or more than one."""
    files = (p for p in folder.iterdir() if p.suffix in SUFFIXES and p.is_file())
    found = sorted(p for p in files if not NOT_AN_SAE.search(p.name))
    if not found:
        raise InputError(
            f"{folder} holds no SAE in SAELens's format (cfg.json, sae_weights.safetensors) "
            f"and no other checkpoint ({', '.join(SUFFIXES)})"
        )
    if len(found) > 1:
        some = ", ".join(p.name for p in found[:4])
        raise InputError(f"{folder} holds several checkpoints: give the path of one ({some})")
    return found[0]


@contextlib.contextmanager
def refusing(what: str, damage: tuple[type[Exception], ...]) -> Iterator[None]:
    """Turn exceptions for unsafe pickles and damaged files into InputError, prefixed by `what`."""
    try:
        yield
    except InputError:
        raise
    except UnpicklingError:
        raise InputError(
            f"{what}: it contains more than tensors, and unpickling that could run code; save its "
            "state_dict as safetensors"
        ) from None
    except damage as error:
        raise InputError(f"{what}: {type(error).__name__}: {one_line(error)}") from None


def _content(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as handle:
            start = handle.read(9)
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror}") from None
    if file.suffix == ".safetensors" or start[8:] == b"{":
        return _safetensors(file)
    return _npz(file) if file.suffix == ".npz" or _is_npz(file) else _pickle(file)


def _is_npz(file: Path) -> bool:
    if not zipfile.is_zipfile(file):
        return False
    with refusing(f"cannot read {file}", (Exception,)), zipfile.ZipFile(file) as archive:
        return all(name.endswith(".npy") for name in archive.namelist())


def _npz(file: Path) -> dict[str, Any]:
    with (
        refusing(f"cannot read {file}", (Exception,)),  # damaged archives raise anything
        np.load(file, allow_pickle=False) as arrays,
    ):
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def _safetensors(file: Path) -> dict[str, Any]:
    with (
        refusing(f"cannot read {file}", (SafetensorError,)),
        safe_open(file, framework="pt") as handle,
    ):
        metadata = {k: _value(v) for k, v in (handle.metadata() or {}).items()}
        return metadata | {k: handle.get_tensor(k) for k in handle.keys()}  # noqa: SIM118


def _pickle(file: Path) -> dict[str, Any]:
    with refusing(f"cannot read {file}", (Exception,)):  # damaged archives raise anything
        content = torch.load(file, map_location="cpu", weights_only=True)
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise InputError(f"{file} holds a {kind}, not named tensors: save a state_dict")
    return {str(key): value for key, value in content.items()}


def _value(text: str) -> Any:
    """A string of the safetensors header, parsed if it is JSON."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _json(file: Path) -> dict[str, Any]:
    try:
        data = read_json(file)
    except (ValueError, OSError) as error:
        raise InputError(f"{file} is not valid JSON: {one_line(error)}") from None
    return data if isinstance(data, dict) else {}


def _tensors(state: dict[str, Any]) -> dict[str, Tensor]:
    """The tensors, numbers and lists of numbers of a state dict, under plain names."""
    return {
        _plain(str(name)): value.detach() if isinstance(value, Tensor) else torch.tensor(value)
        for name, value in state.items()
        if isinstance(value, Tensor) or _is_numbers(value)
    }


def _is_numbers(value: Any) -> bool:
    entries = value if isinstance(value, list | tuple) and value else [value]
    return all(isinstance(v, int | float) and not isinstance(v, bool) for v in entries)


def _plain(name: str) -> str:
    while (shorter := PREFIX.sub("", name)) != name:
        name = shorter
    return name.lower()


def _settings(data: dict[str, Any]) -> dict[str, Any]:
    """Strings, booleans and numbers of a config and its nested configs; outer ones win."""
    found = {}
    for key, value in data.items():
        single = isinstance(value, Tensor) and value.numel() == 1
        if single or isinstance(value, str | bool | int | float):
            plain = value.item() if isinstance(value, Tensor) else value
            found.setdefault(_plain(str(key)), plain)
    for key, value in data.items():
        if isinstance(value, dict) and not NOT_SETTINGS.search(str(key)):
            inner = _settings(value)
            found = inner | {f"{_plain(str(key))}.{name}": v for name, v in inner.items()} | found
    return found
