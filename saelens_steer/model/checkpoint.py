"""A text model in a folder in Hugging Face format, that can be reread."""

from __future__ import annotations

import contextlib
import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from pickle import UnpicklingError  # raised by torch.load; nothing is unpickled here
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import (
    AutoModelForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging
from transformers.utils.quantization_config import Mxfp4Config

from saelens_steer.errors import InputError, first_line
from saelens_steer.model.configs import needs_own_code, quantization_of, read_config
from saelens_steer.model.provenance import Reader
from saelens_steer.model.snapshot import snapshot_commit, snapshot_fingerprint, weight_files
from saelens_steer.model.tokenizer import WANTS_CODE, read_tokenizer, with_tokenizer

TEXT_MODEL = {
    r"^(model\.)?language_model\.lm_head\.": "lm_head.",
    r"^(model\.)?language_model\.(model\.)?": "model.",
}
"""Where a multimodal checkpoint, old or new, keeps its text model."""
OTHER_PARTS = re.compile(
    r"(^|\.)(vision|visual|audio|image|multi_modal|multimodal|mm_|embed_vision|embed_audio|mtp)"
)
"""Weights for vision, audio and multi-token prediction, which text does not need."""
MERGED_ELSEWHERE = "merge it into its base (peft's merge_and_unload) and give the merged folder"
ADAPTER_WEIGHT = re.compile(r"(^|[._])lora_|\.base_layer\.|\.modules_to_save\.")
"""Matches names of an adapter's weights, and of the layers that one is attached to."""
CAUSAL_MASKS = re.compile(r"\.attn(ention)?(\.attention)?\.(masked_)?bias$")
"""Causal-mask buffers in old GPT checkpoints; biases that are weights have other names."""


@dataclass(frozen=True)
class Checkpoint:
    """A text model and its tokenizer, and how to read its weights."""

    name: str
    source: str
    """The folder, or a description of a model in memory."""
    config: PretrainedConfig
    tokenizer: PreTrainedTokenizerBase
    fingerprint: str
    commit: str | None
    read: Reader
    """The Hugging Face model on the CPU, in this dtype; never the same object twice."""


def from_folder(
    name: str, folder: Path, tokenizer: PreTrainedTokenizerBase | None = None
) -> Checkpoint:
    """The checkpoint in a folder, with its own tokenizer unless another is given."""
    config = read_config(folder, name)
    refuse_adapter_weights(name, folder)
    return Checkpoint(
        name=name,
        source=str(folder),
        config=config,
        tokenizer=tokenizer if tokenizer is not None else read_tokenizer(folder, name),
        fingerprint=with_tokenizer(snapshot_fingerprint(folder), tokenizer),
        commit=snapshot_commit(folder),
        read=partial(read_weights, name, folder, config),
    )


def read_weights(
    name: str, folder: Path, config: PretrainedConfig, dtype: torch.dtype
) -> PreTrainedModel:
    """The checkpoint's text model; InputError if weights are damaged, missing or left over."""
    options: dict[str, Any] = {"key_mapping": TEXT_MODEL} if _has_other_parts(folder) else {}
    pickled = weight_files(folder)[0].suffix == ".bin"
    if quantization_of(config):
        options["quantization_config"] = Mxfp4Config(dequantize=True)
    try:
        with quiet():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                folder,
                config=copy.deepcopy(config),
                dtype=dtype,
                use_safetensors=not pickled,
                weights_only=True,
                trust_remote_code=False,
                attn_implementation="eager",
                output_loading_info=True,
                **options,
            )
    except (SafetensorError, UnpicklingError, OSError, RuntimeError, ValueError) as e:
        if WANTS_CODE in str(e):
            raise needs_own_code(name) from e
        if pickled:
            raise InputError(
                f"The pickled weights of {name} cannot be read without running the code in them "
                f"({first_line(e)}); use a checkpoint in safetensors."
            ) from e
        raise InputError(
            f"The weights of {name} cannot be read ({first_line(e)}); download them again."
        ) from e
    hf, info = loaded
    _check_complete(name, info)
    return hf.eval()


def _has_other_parts(folder: Path) -> bool:
    """Whether the folder holds more than a text model."""
    return '"text_config"' in (folder / "config.json").read_text()


def _check_complete(name: str, info: dict[str, Any]) -> None:
    """InputError that names the first weight that is missing or that no module takes."""
    if missing := sorted(info["missing_keys"]):
        raise InputError(f"The weights of {name} lack {missing[0]}; download them again.")
    unexpected = [
        key
        for key in sorted(info["unexpected_keys"])
        if not OTHER_PARTS.search(key) and not CAUSAL_MASKS.search(key)
    ]
    if unexpected:
        raise InputError(
            f"The checkpoint of {name} has weights that this architecture does not use "
            f"({len(unexpected)}, such as {unexpected[0]}); use the checkpoint that its config.json"
            " describes."
        )


def refuse_adapter_weights(name: str, folder: Path) -> None:
    """InputError for a full checkpoint that contains an unmerged adapter."""
    for file in weight_files(folder):
        try:
            with safe_open(file, framework="pt") as weights:
                names = weights.keys()
            found = next((name for name in names if ADAPTER_WEIGHT.search(name)), None)
        except (SafetensorError, OSError):  # reported when it is loaded
            continue
        if found:
            raise InputError(
                f"The weights of {name} hold {found}, part of a LoRA adapter: {MERGED_ELSEWHERE}"
            )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hide transformers' progress bar for loading weights."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()
