"""A text model in Hugging Face format, from a folder or from memory, that can be reread."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import re
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from pickle import UnpicklingError  # raised by torch.load; nothing is unpickled here
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoModelForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging
from transformers.utils.quantization_config import Mxfp4Config

from saelens_steer.errors import InputError, first_line
from saelens_steer.model.adapters import refuse_adapter_weights
from saelens_steer.model.configs import needs_own_code, quantization_of, read_config, text_config
from saelens_steer.model.provenance import Reader
from saelens_steer.model.snapshot import snapshot_commit, snapshot_fingerprint, weight_files
from saelens_steer.model.tokenizer import WANTS_CODE, read_tokenizer

TEXT_MODEL = {
    r"^(model\.)?language_model\.lm_head\.": "lm_head.",
    r"^(model\.)?language_model\.(model\.)?": "model.",
}
"""Where a multimodal checkpoint, old or new, keeps its text model."""
OTHER_PARTS = re.compile(
    r"(^|\.)(vision|visual|audio|image|multi_modal|multimodal|mm_|embed_vision|embed_audio|mtp)"
)
"""Weights for vision, audio and multi-token prediction, which text does not need."""
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
        fingerprint=snapshot_fingerprint(folder),
        commit=snapshot_commit(folder),
        read=partial(read_weights, name, folder, config),
    )


def from_memory(hf: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None) -> Checkpoint:
    """A transformers model as it is now, with the tokenizer that goes with it."""
    if tokenizer is None:
        raise InputError(
            "A model in memory comes without a tokenizer: pass load_model(model, tokenizer=…)."
        )
    config = copy.deepcopy(hf.config)
    config.architectures = [type(hf).__name__]
    config = text_config(config)
    kept = weakref.ref(hf)
    return Checkpoint(
        name=str(hf.config.name_or_path or type(hf).__name__),
        source="memory",
        config=config,
        tokenizer=tokenizer,
        fingerprint=_digest(hf, tokenizer),
        commit=None,
        read=lambda dtype: _copied(kept, config, dtype),
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
        with _quiet():
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
            f"The weights of {name} hold {unexpected[0]}, for which its architecture has no place "
            f"(one of {len(unexpected)}); use the checkpoint that its config.json describes."
        )


def _copied(
    kept: weakref.ref[PreTrainedModel], config: PretrainedConfig, dtype: torch.dtype
) -> PreTrainedModel:
    """A copy of a model in memory, in eager attention, whose weights are checked to be equal."""
    if (hf := kept()) is None:
        raise InputError("The transformers model that this model was loaded from no longer exists.")
    if any(weight.is_meta for weight in hf.parameters()):
        raise InputError("Some weights are not in memory: load the model without offloading.")
    copied = rebuilt(type(hf).__name__, hf.state_dict(), config, dtype)
    copied.generation_config = copy.deepcopy(hf.generation_config)
    return copied


def rebuilt(
    name: str, state: dict[str, torch.Tensor], config: PretrainedConfig, dtype: torch.dtype
) -> PreTrainedModel:
    """The text model of a config, on the CPU, with these weights.

    InputError if a weight is missing, left over, or tied to one that differs from it.
    """
    named = {_text_name(key): w for key, w in state.items() if not OTHER_PARTS.search(key)}
    config = copy.deepcopy(config)
    config._attn_implementation = "eager"
    vars(config).pop("quantization_config", None)  # these weights are no longer quantised
    with _quiet(), torch.random.fork_rng(devices=[]):
        hf = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
    try:
        hf.load_state_dict({key: weight.to("cpu", dtype) for key, weight in named.items()})
    except RuntimeError as e:
        line = (str(e).splitlines() or [""])[1:2] or [first_line(e)]
        raise InputError(
            f"The weights of the model {name} do not match its config ({line[0].strip()}); "
            "merge adapters and undo changes to its modules first."
        ) from e
    for key, weight in hf.state_dict().items():
        if not torch.equal(weight, named[key].to("cpu", dtype)):
            raise InputError(
                f"In the model {name}, {key} differs from the weight that its config ties it to; "
                "set tie_word_embeddings to false."
            )
    return hf.eval()


def _text_name(key: str) -> str:
    """The name that a weight has in the text model alone."""
    for pattern, name in TEXT_MODEL.items():
        key, found = re.subn(pattern, name, key)
        if found:
            break
    return key


def _digest(hf: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> str:
    """sha256 over a model's config, tokenizer and weights."""
    digest = hashlib.sha256(hf.config.to_json_string().encode())
    digest.update(repr((sorted(tokenizer.get_vocab().items()), tokenizer.chat_template)).encode())
    for name, weight in sorted(hf.state_dict().items()):
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}\n".encode())
        digest.update(weight.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide transformers' progress bar for loading weights."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()
