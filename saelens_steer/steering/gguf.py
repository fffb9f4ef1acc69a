"""GGUF control vectors, as llama.cpp and repeng read them.

llama.cpp adds `direction.L` to the residual after the MLP of layer L (`build_cvec`), L counted from
0 and at least 1. A file may hold only float32 tensors [d_model] with such names
(`common_control_vector_load_one` in common/common.cpp). Both llama.cpp's cvector-generator and
repeng (`ControlVector.export_gguf`) write the number of vectors as `layer_count`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from saelens_steer.errors import InputError, one_line
from saelens_steer.model import GGUF_DAMAGE, gguf_package, hook_layer

KIND = "controlvector"
HINT = f"{KIND}.model_hint"
LLAMA_CPP = {
    "BloomForCausalLM": "bloom",
    "GPT2LMHeadModel": "gpt2",
    "GPTJForCausalLM": "gptj",
    "GPTNeoXForCausalLM": "gptneox",
    "Gemma2ForCausalLM": "gemma2",
    "Gemma3ForCausalLM": "gemma3",
    "GemmaForCausalLM": "gemma",
    "GptOssForCausalLM": "gpt-oss",
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "llama",
    "MixtralForCausalLM": "llama",
    "Olmo2ForCausalLM": "olmo2",
    "Olmo3ForCausalLM": "olmo2",
    "OlmoForCausalLM": "olmo",
    "OlmoeForCausalLM": "olmoe",
    "Phi3ForCausalLM": "phi3",
    "PhiForCausalLM": "phi2",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen2MoeForCausalLM": "qwen2moe",
    "Qwen3ForCausalLM": "qwen3",
    "Qwen3MoeForCausalLM": "qwen3moe",
    "SmolLM3ForCausalLM": "smollm3",
}
"""transformers' class → llama.cpp's architecture, which its own tools write as the hint."""
ABOUT = "saelens_steer.about"
"""Key of our metadata, which other tools ignore."""
LAYERS_BACK = {"hook_resid_pre": 1, "hook_resid_post": 0, "hook_mlp_out": 0}
"""Hook → its layer minus the layer whose output the vector is added to."""


def direction_layer(hook_name: str) -> int:
    """The L of `direction.L` that adds a vector at this hook, L ≥ 1.

    Adding to `hook_mlp_out` is adding to `hook_resid_post` of its layer. Raises InputError for
    other hooks inside a layer, and for hooks before the output of layer 1.
    """
    back = LAYERS_BACK.get(hook_name.split(".", 2)[-1])
    if back is None:
        raise InputError(
            f"a GGUF control vector cannot be added at {hook_name}: use "
            f"{', '.join(LAYERS_BACK)}, or a .safetensors file"
        )
    layer = hook_layer(hook_name) - back
    if layer < 1:
        raise InputError(
            f"{hook_name} is before the output of layer 1, the first that a GGUF control vector "
            "can be added to: use a later hook, or a .safetensors file"
        )
    return layer


def write_control_vectors(
    path: Path, directions: Mapping[int, Tensor], hint: str, about: str
) -> None:
    """Write float32 vectors [d_model] by layer. Raises InputError if gguf is not installed."""
    writer = gguf_package().GGUFWriter(path, KIND)
    try:
        writer.add_string(HINT, hint)
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
    """Vectors by layer, the model's hint and our notes as JSON (`{}` in files of other tools).

    Raises InputError for a damaged file, or one that is not a control vector.
    """
    gguf = gguf_package()
    try:
        reader = gguf.GGUFReader(path)
        texts = {key: _text(reader, key) for key in ("general.architecture", HINT, ABOUT)}
        tensors = {t.name: np.array(t.data) for t in reader.tensors}
    except GGUF_DAMAGE as error:
        raise InputError(f"{path} is damaged, or not a GGUF file: {one_line(error)}") from None
    if (kind := texts["general.architecture"]) != KIND:
        raise InputError(f"{path} is not a control vector: its architecture is {kind or 'unnamed'}")
    directions = {}
    for name, data in tensors.items():
        if (found := re.fullmatch(r"direction\.([1-9]\d{0,4})", name)) is None:
            raise InputError(f"{path}: tensor {name!r} should be named direction.L, with L from 1")
        if data.dtype != np.float32 or data.ndim != 1:
            raise InputError(f"{path}: {name} is not a float32 vector")
        directions[int(found[1])] = torch.from_numpy(data.astype(np.float32))
    return dict(sorted(directions.items())), texts[HINT], texts[ABOUT] or "{}"


def _text(reader: Any, key: str) -> str:
    """The text under a key; empty if the key is missing."""
    field = reader.get_field(key)
    return bytes(field.parts[-1]).decode() if field else ""
