"""Read a checkpoint's config.json: which text model it holds, and whether that can be loaded."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
from transformer_lens.factories.architecture_adapter_factory import SUPPORTED_ARCHITECTURES
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from saelens_steer.errors import InputError, one_line

DEQUANTIZED = ("mxfp4",)
"""Quantisations that transformers undoes while loading; gpt-oss ships only such weights."""


def read_config(folder: Path, name: str | None = None) -> PretrainedConfig:
    """The config of the checkpoint's text model, which names one architecture.

    InputError if TransformerLens does not know the architecture, if a variant of it would be
    ignored, if no model can be built from it, or if transformers could read the checkpoint only by
    running code that comes with it.
    """
    raw, error = _raw(folder), needs_own_code(name or str(folder))
    known = str(raw.get("model_type")) in CONFIG_MAPPING
    if raw.get("auto_map") and not known:
        raise error
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as e:  # transformers validates configs with errors of several kinds
        if known:
            raise _invalid(folder, e) from e
        raise _unsupported((raw.get("architectures") or ["none"])[0]) from e
    if raw.get("auto_map") and _text_class(config) is None:
        raise error
    text = text_config(config)
    try:
        weightless(text)
    except Exception as e:  # whatever a model does with a wrong value
        raise _invalid(folder, e) from e
    return text


def weightless(config: PretrainedConfig) -> PreTrainedModel:
    """The model of a config without memory for its weights."""
    config = copy.deepcopy(config)
    vars(config).pop("quantization_config", None)
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        return AutoModelForCausalLM.from_config(config, trust_remote_code=False)


def text_config(config: PretrainedConfig) -> PretrainedConfig:
    """The part of a config that describes the text model, checked as `read_config` says."""
    named = (config.architectures or ["none"])[0]
    text, expected = config.get_text_config(decoder=True), _text_class(config)
    if text is config and named != expected:
        raise _unsupported(named)
    if expected not in SUPPORTED_ARCHITECTURES or not expected.endswith(("CausalLM", "HeadModel")):
        raise _unsupported(named)
    if text is not config:
        text.tie_word_embeddings = config.tie_word_embeddings
        text.architectures = [expected]
    _refuse(config, text)
    return text


def _text_class(config: PretrainedConfig) -> str | None:
    """transformers' class for the text model; None if it has none that generates text."""
    return MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(config.get_text_config(decoder=True).model_type)


def _raw(folder: Path) -> dict[str, Any]:
    """The contents of config.json."""
    try:
        raw = json.loads((folder / "config.json").read_text())
        (raw.get("architectures") or ["none"])[0]
        return raw
    except (ValueError, AttributeError, TypeError, IndexError, KeyError) as e:
        raise InputError(
            f"{folder / 'config.json'} is not a model config; download the checkpoint again."
        ) from e


def _invalid(folder: Path, error: Exception) -> InputError:
    """The error for a config of a known kind with values from which no model can be built."""
    return InputError(f"{folder / 'config.json'} is invalid: {one_line(error)}")


def _unsupported(architecture: str) -> InputError:
    """The error for an architecture that is not a text decoder known to TransformerLens."""
    return InputError(
        f"The architecture {architecture} is not supported; use a causal text decoder that "
        "TransformerLens knows, such as LlamaForCausalLM or GPT2LMHeadModel."
    )


def needs_own_code(name: str) -> InputError:
    """The error for a checkpoint that transformers can load only by running its code."""
    return InputError(
        f"The model {name} needs its own Python code, which is never run here; use a checkpoint "
        "that transformers supports natively."
    )


def quantization_of(config: Any) -> str | None:
    """How the checkpoint's weights are quantised; None if they are not."""
    found = getattr(config, "quantization_config", None)
    if found is None:
        return None
    return str((found if isinstance(found, dict) else vars(found)).get("quant_method") or "unknown")


def _refuse(config: Any, text: Any) -> None:
    """Refuse checkpoints that neither class of TransformerLens would compute correctly."""
    quantization = quantization_of(config) or quantization_of(text)
    unsupported = {
        "quantized weights": quantization not in (None, *DEQUANTIZED),
        "bidirectional attention": bool(getattr(text, "use_bidirectional_attention", False)),
        "an encoder": bool(getattr(config, "is_encoder_decoder", False)),
        "weights in a nonstandard file (transformers_weights)": bool(
            getattr(config, "transformers_weights", None)
        ),
    }
    for what, present in unsupported.items():
        if present:
            raise InputError(
                f"This checkpoint is not supported because it has {what}; use one without."
            )
