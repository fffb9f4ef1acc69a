"""GGUF control vectors, as llama.cpp and repeng read them.

llama.cpp adds `direction.L` to the output of layer L, counted from 0, where the MLP's output has
just been added to the residual (`build_cvec` in each model's graph); there is none for layer 0, and
a file may hold nothing but float32 tensors [d_model] of such names
(`common_control_vector_load_one` in common/common.cpp). Its own tools/cvector-generator and repeng
(`ControlVector.export_gguf`) both write the number of vectors as `layer_count`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from saelens_steer.errors import InputError
from saelens_steer.model import hook_layer

KIND = "controlvector"
HINT = f"{KIND}.model_hint"
ABOUT = "saelens_steer.about"
"""Our metadata, which other tools ignore."""
LAYERS_BACK = {"hook_resid_pre": 1, "hook_resid_post": 0, "hook_mlp_out": 0}
"""Hook → its layer minus the layer at whose output its vector can be added."""


def direction_layer(hook_name: str) -> int:
    """L such that adding to the output of layer L is adding at this hook, L ≥ 1.

    Adding to `hook_mlp_out` adds as much to the `hook_resid_post` of its layer. Raises InputError
    for places inside a layer, and before the output of layer 1.
    """
    back = LAYERS_BACK.get(hook_name.split(".", 2)[-1])
    if back is None:
        raise InputError(
            f"a control vector is added between layers, which {hook_name} is not: only "
            f"{', '.join(LAYERS_BACK)} can be expressed, others by a .safetensors file"
        )
    layer = hook_layer(hook_name) - back
    if layer < 1:
        raise InputError(
            f"{hook_name} lies before the output of layer 1, and a control vector cannot be added "
            "before that: use a later hook, or a .safetensors file"
        )
    return layer


def direction_place(layer: int) -> str:
    """The hook that `direction.{layer}` is added at: the output of the layer."""
    return f"blocks.{layer}.hook_resid_post"


def write_control_vectors(
    path: Path, directions: Mapping[int, Tensor], model: str, about: str
) -> None:
    """Write float32 vectors [d_model] by layer. Raises InputError if gguf is not installed."""
    writer = _gguf().GGUFWriter(path, KIND)
    try:
        writer.add_string(HINT, model)
        writer.add_uint32(f"{KIND}.layer_count", len(directions))
        writer.add_string(ABOUT, about)
        for layer, vector in sorted(directions.items()):
            writer.add_tensor(f"direction.{layer}", vector.numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def read_control_vectors(path: Path) -> tuple[dict[int, Tensor], str, str]:
    """Vectors by layer, the model's name and our notes on them (JSON; `{}` for other tools' files).

    Raises InputError for a damaged file and for one that is no control vector.
    """
    gguf = _gguf()
    try:
        reader = gguf.GGUFReader(path)
        texts = {key: _text(reader, key) for key in ("general.architecture", HINT, ABOUT)}
        tensors = {t.name: np.array(t.data) for t in reader.tensors}
    except (ValueError, LookupError, TypeError, OverflowError, OSError, MemoryError) as error:
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{path} is no GGUF file, or damaged: {why}") from None
    if texts["general.architecture"] != KIND:
        kind = texts["general.architecture"] or "nothing that it names"
        raise InputError(f"{path} is no control vector: it holds {kind}")
    directions = {_layer(path, name): _vector(path, name, data) for name, data in tensors.items()}
    return dict(sorted(directions.items())), texts[HINT], texts[ABOUT] or "{}"


def _text(reader: Any, key: str) -> str:
    """The text under a key; empty if there is none."""
    field = reader.get_field(key)
    return bytes(field.parts[-1]).decode() if field else ""


def _layer(path: Path, name: str) -> int:
    found = re.fullmatch(r"direction\.([1-9]\d{0,4})", name)
    if found is None:
        raise InputError(f"{path}: {name!r} is no direction of a layer, as direction.1 is")
    return int(found[1])


def _vector(path: Path, name: str, data: np.ndarray) -> Tensor:
    if data.dtype != np.float32 or data.ndim != 1:
        raise InputError(f"{path}: {name} is not one vector in float32")
    return torch.from_numpy(data.astype(np.float32))


def _gguf() -> Any:
    try:
        import gguf
    except ImportError:
        raise InputError(
            "GGUF files need the package gguf, which comes with the extra saelens-steer[gguf]"
        ) from None
    return gguf
