"""Reading a checkpoint: its tensors and the settings beside them, without running its code."""

from __future__ import annotations

import json
import pickle
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from saelens_steer.errors import InputError

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
SIDECARS = ("config.json", "cfg.json")
"""Settings in the checkpoint's folder; those inside the file take precedence."""
STATES = ("state_dict", "model_state_dict", "sae_state_dict", "sae", "autoencoder", "model")
"""Keys of the weights in a checkpoint that holds more than weights."""
PREFIX = re.compile(r"^(module|_orig_mod|sae|autoencoder|ae|model)\.")
NOT_SETTINGS = re.compile("optim|sched|rng")


@dataclass(frozen=True)
class Checkpoint:
    """Names are in lower case and without prefixes such as `module.`."""

    file: Path
    weights: dict[str, Tensor]
    """All that the state dict holds; single numbers are tensors without dimensions."""
    beside: dict[str, Tensor]
    """Tensors, numbers and lists of numbers that stand beside a state dict."""
    settings: dict[str, Any]
    """Strings, switches, numbers of configs at any depth, the outermost first."""


def read_checkpoint(file: Path) -> Checkpoint:
    """The tensors and settings of a .safetensors file or a torch pickle of plain tensors.

    The content decides which, not the suffix. Raises InputError if it cannot be read without
    running code, or holds no tensors by name.
    """
    try:
        with file.open("rb") as handle:
            safetensors = file.suffix == ".safetensors" or handle.read(9)[8:] == b"{"
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror}") from None
    content = _safetensors(file) if safetensors else _pickle(file)
    nested = [content[key] for key in STATES if isinstance(content.get(key), dict)]
    inner = next((c for c in nested if any(isinstance(v, Tensor) for v in c.values())), None)
    state, outer = (content, {}) if inner is None else (inner, content)
    weights = _tensors(state)
    if not any(weight.ndim == 2 for weight in weights.values()):
        raise InputError(f"{file} holds no matrix by name, so it is no SAE")
    settings = _settings(content)
    for sidecar in SIDECARS:
        settings = _settings(_json(file.with_name(sidecar))) | settings
    return Checkpoint(file, weights, _tensors(outer), settings)


def checkpoint_in(folder: Path) -> Path:
    """The one checkpoint of a folder. Raises InputError for none, or several."""
    found = sorted(p for p in folder.iterdir() if p.suffix in SUFFIXES and p.is_file())
    if not found:
        raise InputError(
            f"{folder} is not an SAE in SAELens's format (it has no cfg.json with "
            f"sae_weights.safetensors), nor does it hold a checkpoint ({', '.join(SUFFIXES)})"
        )
    if len(found) > 1:
        some = ", ".join(p.name for p in found[:4])
        raise InputError(f"{folder} holds several checkpoints: name one of them, such as {some}")
    return found[0]


def _safetensors(file: Path) -> dict[str, Any]:
    try:
        with safe_open(file, framework="pt") as handle:
            about = {k: _value(v) for k, v in (handle.metadata() or {}).items()}
            return about | {k: handle.get_tensor(k) for k in handle.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise InputError(f"{file} is no whole safetensors file: {one_line(error)}") from None


def _pickle(file: Path) -> dict[str, Any]:
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise InputError(
            f"{file} is not a pickle of plain tensors, and opening it could run code: "
            "save its state_dict as safetensors"
        ) from None
    except Exception as error:  # whatever a damaged archive makes of torch
        raise InputError(
            f"{file} is no checkpoint that torch can read: {one_line(error)}"
        ) from None
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise InputError(f"{file} holds a {kind}, not tensors by name: save a state_dict")
    return {str(key): value for key, value in content.items()}


def one_line(error: Exception) -> str:
    """The message of an error on one line, cut after 200 characters."""
    return " ".join(str(error).split())[:200] or repr(error)


def _value(text: str) -> Any:
    """A string of safetensors' header, parsed if it is JSON."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise InputError(f"{file} is no JSON: {one_line(error)}") from None
    return data if isinstance(data, dict) else {}


def _tensors(state: dict[str, Any]) -> dict[str, Tensor]:
    """Tensors, numbers and lists of numbers, by their plain names."""
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
    """Strings, switches and numbers of a config and of the configs in it, the outer first."""
    found = {}
    for key, value in data.items():
        single = isinstance(value, Tensor) and value.numel() == 1
        if single or isinstance(value, str | bool | int | float):
            plain = value.item() if isinstance(value, Tensor) else value
            found.setdefault(_plain(str(key)), plain)
    for key, value in data.items():
        if isinstance(value, dict) and not NOT_SETTINGS.search(str(key)):
            found = _settings(value) | found
    return found
