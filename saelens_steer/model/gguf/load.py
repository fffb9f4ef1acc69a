"""A checkpoint in one GGUF file, its weights read by transformers.

transformers' reader silently drops what it does not know. The config is therefore built from the
header by `gguf_config`, which refuses a file unless each key and each tensor is part of the model.
"""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from saelens_steer.errors import InputError, one_line
from saelens_steer.model.checkpoint import Checkpoint
from saelens_steer.model.configs import text_config
from saelens_steer.model.gguf.config import gguf_config
from saelens_steer.model.gguf.header import GGUF_DAMAGE, GgufFile, read_gguf
from saelens_steer.model.gguf.tokenizer import gguf_tokenizer
from saelens_steer.model.snapshot import ADAPTER_CONFIG, content_hash, snapshot_commit
from saelens_steer.model.tokenizer import with_tokenizer

ENDS = ("eos", "eot", "eom")
"""Ends of text, of a turn and of a message: llama.cpp stops at each."""


def from_gguf(
    name: str, path: Path, tokenizer: PreTrainedTokenizerBase | None = None
) -> Checkpoint:
    """The checkpoint in a file, with its own tokenizer unless another is given."""
    if (beside := path.parent / ADAPTER_CONFIG).exists():
        raise InputError(
            f"{beside} is in the same folder as {path}, and transformers would apply that "
            "adapter to it: move one of them to another folder"
        )
    file = read_gguf(path)
    config = text_config(gguf_config(file))
    return Checkpoint(
        name=name,
        source=str(path),
        config=config,
        tokenizer=gguf_tokenizer(file) if tokenizer is None else tokenizer,
        fingerprint=with_tokenizer(content_hash(path), tokenizer),
        commit=snapshot_commit(path.parent),
        read=partial(read_gguf_weights, file, config),
    )


def read_gguf_weights(
    file: GgufFile, config: PretrainedConfig, dtype: torch.dtype
) -> PreTrainedModel:
    """The de-quantised model on the CPU; InputError for weights that transformers cannot read."""
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            file.path.parent,
            gguf_file=file.path.name,
            config=copy.deepcopy(config),
            dtype=dtype,
            trust_remote_code=False,
            attn_implementation="eager",
            output_loading_info=True,
            **_dequantized(),
        )
    except (*GGUF_DAMAGE, RuntimeError, ImportError) as error:
        raise InputError(f"transformers cannot read {file.path}: {one_line(error)}") from error
    hf, info = loaded
    if left_out := sorted(map(str, [*info["missing_keys"], *info["mismatched_keys"]])):
        raise InputError(f"transformers found no tensor for {left_out[0]} in {file.path}")
    _forget_quantization(hf)
    hf.generation_config.eos_token_id = _stop_ids(file)
    return hf.eval()


def _dequantized() -> dict[str, Any]:
    """The option that unpacks the weights even if the package kernels could leave them packed."""
    try:
        from transformers import GgufConfig
    except ImportError:  # a transformers that always unpacks
        return {}
    return {"quantization_config": GgufConfig(dequantize=True)}


def _forget_quantization(hf: Any) -> None:
    """Remove the marks of a quantised model, since its weights are plain numbers now."""
    for owner in (hf, hf.config):
        for mark in ("quantization_config", "hf_quantizer", "quantization_method", "is_quantized"):
            vars(owner).pop(mark, None)


def _stop_ids(file: GgufFile) -> list[int] | None:
    ids = [file.values.get(f"tokenizer.ggml.{end}_token_id") for end in ENDS]
    return list(dict.fromkeys(i for i in ids if i is not None)) or None
