"""Read a checkpoint's tensors and settings without running its code."""

from __future__ import annotations

import contextlib
import json
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError  # raised by torch.load; nothing is unpickled here
from typing import Any, TypeGuard

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
SECTIONS = (
    *("trainer", "buffer", "cfg", "config", "sae", "sae_cfg", "sae_config", "metadata", "settings"),
    *("args", "hparams", "hyperparams", "hyperparameters", "hyper_parameters"),
    *("activation_fn_kwargs", "activation_state_dict"),
)
"""Nested configs of the SAE itself. `unit_norm` of anything else, such as `decoder`, may mean
something else."""
IGNORE = "ignore"
"""A setting with which a user lists names of settings and tensors that are to be left out."""
NOT_AN_SAE = re.compile(r"sparsity|optimizer|scheduler|(activations_store|trainer|rank_\d+)_state")
"""Names of files that training writes beside an SAE."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint's content; names are in lower case, without prefixes like `module.`."""

    file: Path
    weights: dict[str, Tensor]
    """The tensors of the state dict."""
    beside: dict[str, Tensor]
    """Tensors and lists of numbers outside the state dict, named like `settings`."""
    settings: dict[str, Any]
    """Strings, booleans and numbers: of the outermost config and of SECTIONS under their own name,
    of other nested configs as `outer.inner`; the outermost takes precedence."""


def read_checkpoint(file: Path) -> Checkpoint:
    """The tensors and settings of a .safetensors or .npz file or a torch pickle of plain tensors.

    The content decides the format, not the suffix. Raises InputError if the file cannot be read
    without running code, or holds no named matrix.
    """
    content = _content(file)
    nested = [content[key] for key in STATES if isinstance(content.get(key), dict)]
    inner = next((c for c in nested if any(isinstance(v, Tensor) for v in c.values())), None)
    state = content if inner is None else inner
    weights = {_plain(str(k)): v.detach() for k, v in state.items() if isinstance(v, Tensor)}
    if not any(weight.ndim >= 2 for weight in weights.values()):
        raise InputError(f"{file} holds no named matrix, so it is not an SAE")
    tensors = [k for k, v in state.items() if isinstance(v, Tensor)] if inner is None else []
    outer = {k: v for k, v in content.items() if v is not inner and k not in tensors}
    configs = [content, state, *map(_json, settings_files(file))]
    settings, beside = {}, _named(outer, _vector)
    for config in configs:
        settings = _named(config, _single) | settings
    for config in configs[2:]:
        beside = _named(config, _vector) | beside
    lists = (config.get(IGNORE) for config in configs)
    left_out = {_plain(str(n)) for names in lists if isinstance(names, list) for n in names}
    return Checkpoint(file, *(_without(found, left_out) for found in (weights, beside, settings)))


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
    """Turn exceptions for unsafe pickles and damaged files into InputError, prefixed by `what`.

    Silences SAELens's warnings about a file, all of which the loading here heeds or refuses.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=UserWarning, module=r"sae_lens\.")
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
    data = read_json(file)
    return data if isinstance(data, dict) else {}


def truth(value: Any) -> bool | None:
    """Whether a setting is true, as configs write it: true, 1 or "true"; None for other values."""
    word = int(value) if isinstance(value, float) and value in (0, 1) else value
    return {"true": True, "1": True, "false": False, "0": False}.get(str(word).lower())


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether a setting is a number, which true and false are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _plain(name: str) -> str:
    while (shorter := PREFIX.sub("", name)) != name:
        name = shorter
    return name.lower()


def _named(data: dict[str, Any], read: Callable[[Any], Any]) -> dict[str, Any]:
    """What `read` makes of the values of a config and its nested configs, unless it is None."""
    values = {_plain(str(key)): read(value) for key, value in data.items()}
    found = {key: value for key, value in values.items() if value is not None}
    for key, value in data.items():
        if isinstance(value, dict) and not NOT_SETTINGS.search(str(key)):
            start = "" if (name := _plain(str(key))) in SECTIONS else f"{name}."
            inner = _named(value, read).items()
            found = {f"{start}{name}": value for name, value in inner} | found
    return found


def _single(value: Any) -> Any:
    """A string, boolean or number, also of a tensor with one entry."""
    if isinstance(value, Tensor):
        return value.item() if value.numel() == 1 else None
    return value if isinstance(value, str | bool | int | float) else None


def _vector(value: Any) -> Tensor | None:
    """A tensor, also of a list of numbers."""
    if isinstance(value, Tensor):
        return value.detach()
    numbers = isinstance(value, list | tuple) and value and all(map(is_number, value))
    return torch.tensor(value) if numbers else None


def _without(found: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """The entries without those of these names, and without nested configs of these names."""
    starts = tuple(f"{name}." for name in names)
    return {k: v for k, v in found.items() if k not in names and not k.startswith(starts)}
