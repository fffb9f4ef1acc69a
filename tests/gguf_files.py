"""GGUF files written from Hugging Face checkpoints, as llama.cpp's converter writes them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Tokenizer
from transformers.pytorch_utils import Conv1D

ARCHITECTURES = {
    "gemma2": "gemma2",
    "gemma3_text": "gemma3",
    "gpt2": "gpt2",
    "llama": "llama",
    "phi3": "phi3",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
}
"""transformers' model type → llama.cpp's architecture."""

NORMAL, CONTROL, UNUSED = 1, 3, 5
Tensors = dict[str, np.ndarray]


@dataclass(frozen=True)
class Contents:
    """What a GGUF file holds: keys, and tensors before they are quantised."""

    keys: dict[str, Any]
    tensors: Tensors

    def but(
        self, keys: Mapping[str, Any] | None = None, tensors: Mapping[str, Any] | None = None
    ) -> Contents:
        """With other keys and tensors; None leaves one out."""
        changed = ({**self.keys, **(keys or {})}, {**self.tensors, **(tensors or {})})
        kept = ({k: v for k, v in part.items() if v is not None} for part in changed)
        return Contents(*kept)

    def write(self, path: Path, quantize: str = "F32") -> Path:
        """Write the file; matrices that fit the blocks of the type are quantised."""
        return write_file(path, self.keys, self.tensors, quantize)


def contents_of(folder: Path, pre: str | None = None) -> Contents:
    """A checkpoint as llama.cpp's converter writes it; `pre` says how its tokenizer splits text."""
    hf = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    architecture = ARCHITECTURES[hf.config.model_type]
    pre = pre or ("qwen2" if isinstance(tokenizer, Qwen2Tokenizer) else "gpt-2")
    vocabulary = _vocabulary(tokenizer, hf.config.vocab_size, pre)
    keys = {**_keys(hf.config, architecture), **vocabulary}
    return Contents(keys, _tensors(hf, architecture)).but()


def rounded(hf: Any, kind: str) -> Any:
    """The model with its matrices rounded as `write` rounds them."""
    quantization = gguf.GGMLQuantizationType[kind]
    turned = {f"{n}.weight" for n, part in hf.named_modules() if isinstance(part, Conv1D)}
    for name, weight in hf.named_parameters():
        values = weight.detach().numpy()
        values = values.T if name in turned else values
        if values.ndim > 1 and values.shape[-1] % BLOCK == 0:
            packed = gguf.quants.quantize(np.ascontiguousarray(values), quantization)
            values = gguf.quants.dequantize(packed, quantization)
            weight.data = torch.from_numpy(values.T if name in turned else values).contiguous()
    return hf


BLOCK = 32


def write_file(
    path: Path, keys: Mapping[str, Any], tensors: Mapping[str, np.ndarray], quantize: str = "F32"
) -> Path:
    """Write keys and tensors; matrices that fit the blocks of the type are quantised."""
    writer = gguf.GGUFWriter(path, keys.get("general.architecture", "llama"))
    for key, value in keys.items():
        if value is not None and key != "general.architecture":
            _add(writer, key, value)
    kind = gguf.GGMLQuantizationType[quantize]
    for name, values in tensors.items():
        if values.ndim > 1 and quantize != "F32" and values.shape[-1] % BLOCK == 0:
            packed = gguf.quants.quantize(np.ascontiguousarray(values), kind)
            writer.add_tensor(name, packed, raw_dtype=kind)
        else:
            writer.add_tensor(name, np.ascontiguousarray(values, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add(writer: Any, key: str, value: Any) -> None:
    """Add a key in the type that llama.cpp's converter gives it."""
    kinds = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32}
    kinds |= {str: writer.add_string, list: writer.add_array}
    kinds[type(value)](key, value)


def _keys(config: Any, architecture: str) -> dict[str, Any]:
    """The keys of an architecture, as the converter states them."""
    stated = {
        "block_count": config.num_hidden_layers,
        "embedding_length": config.hidden_size,
        "context_length": config.max_position_embeddings,
        "attention.head_count": config.num_attention_heads,
    }
    if architecture == "gpt2":
        stated |= {
            "feed_forward_length": 4 * config.hidden_size,
            "attention.layer_norm_epsilon": config.layer_norm_epsilon,
        }
    else:
        stated |= _decoder_keys(config, architecture)
    named = {f"{architecture}.{name}": value for name, value in stated.items()}
    return {"general.architecture": architecture, "general.type": "model", **named}


def _decoder_keys(config: Any, architecture: str) -> dict[str, Any]:
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    rope = config.rope_parameters
    stated = {
        "feed_forward_length": config.intermediate_size,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "attention.key_length": width,
        "attention.value_length": width,
        "rope.freq_base": float(rope.get("full_attention", rope)["rope_theta"]),
        "rope.dimension_count": int(width * rope.get("partial_rotary_factor", 1.0)),
    }
    if architecture in ("gemma2", "gemma3", "phi3"):
        stated["attention.sliding_window"] = config.sliding_window or 0
    if architecture == "gemma2":
        stated["attn_logit_softcapping"] = float(config.attn_logit_softcapping)
        stated["final_logit_softcapping"] = float(config.final_logit_softcapping)
    return stated


def _vocabulary(tokenizer: Any, rows: int, pre: str | None) -> dict[str, Any]:
    """A byte-level vocabulary, padded to the rows of the embedding."""
    backend = tokenizer.backend_tokenizer
    words = {i: word for word, i in backend.get_vocab().items()}
    special = set(tokenizer.all_special_ids)
    ids = range(rows)
    merges = json.loads(backend.to_str())["model"]["merges"]
    pairs = [pair if isinstance(pair, str) else " ".join(pair) for pair in merges]
    kind = [CONTROL if i in special else NORMAL if i in words else UNUSED for i in ids]
    adds_bos = tokenizer("x").input_ids[0] == tokenizer.bos_token_id
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": [words.get(i, f"[PAD{i}]") for i in ids],
        "tokenizer.ggml.token_type": kind,
        "tokenizer.ggml.merges": pairs,
        "tokenizer.ggml.bos_token_id": tokenizer.bos_token_id,
        "tokenizer.ggml.eos_token_id": tokenizer.eos_token_id,
        "tokenizer.ggml.padding_token_id": tokenizer.pad_token_id,
        "tokenizer.ggml.add_bos_token": adds_bos,
        "tokenizer.chat_template": tokenizer.chat_template,
    }


def _tensors(hf: Any, architecture: str) -> Tensors:
    """The weights under llama.cpp's names, laid out as it wants them."""
    kinds = {name: kind for kind, name in gguf.MODEL_ARCH_NAMES.items()}
    names = gguf.get_tensor_name_map(kinds[architecture], hf.config.num_hidden_layers)
    found = {}
    for name, weight in hf.named_parameters():
        stem, dot, end = name.rpartition(".")
        found[f"{names.get_name(stem)}{dot}{end}"] = _laid_out(
            name, weight.detach().numpy(), hf.config, architecture
        )
    return found


def _laid_out(name: str, weight: np.ndarray, config: Any, architecture: str) -> np.ndarray:
    """llama.cpp interleaves a Llama's rotated halves, adds Gemma's 1, and turns Conv1D weights."""
    if architecture == "llama" and "q_proj" in name:
        return _interleaved(weight, config.num_attention_heads)
    if architecture == "llama" and "k_proj" in name:
        return _interleaved(weight, config.num_key_value_heads)
    if architecture.startswith("gemma") and name.endswith("norm.weight"):
        return weight + 1
    if architecture == "gpt2" and weight.ndim == 2 and (".attn." in name or ".mlp." in name):
        return weight.T
    return weight


def _interleaved(weight: np.ndarray, heads: int) -> np.ndarray:
    halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return halves.swapaxes(1, 2).reshape(weight.shape)
