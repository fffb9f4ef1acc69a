"""Which checkpoints can be loaded, and TransformerLens's config for each.

A new architecture is one entry of `ARCHITECTURES`: how it differs from a plain decoder with
RMS norms, rotary positions and a gated MLP. The parity proof then decides whether it is right.
The configs are built here because TransformerLens dispatches on words in the path: a small
Llama under its real name gets the sizes of an 8B, and a folder of Gemma 3 gets none.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformer_lens.utilities.activation_functions import SUPPORTED_ACTIVATIONS
from transformers import CONFIG_MAPPING, AutoConfig, PretrainedConfig

from saelens_steer.errors import InputError

MAX_DEFAULT_N_CTX = 4096
FULL, SLIDING = "full_attention", "sliding_attention"
Settings = dict[str, Any]


def hooked_config(config: PretrainedConfig, dtype: torch.dtype) -> HookedTransformerConfig:
    """TransformerLens's config for a checkpoint that `read_config` accepted."""
    architecture = (config.architectures or ["none"])[0]
    settings = {**_decoder(config), **_rotary(config), **_windows(config)}
    return HookedTransformerConfig(
        **{**settings, **ARCHITECTURES[architecture](config)},
        original_architecture=architecture,
        dtype=dtype,
        init_weights=False,
    )


def _decoder(config: Any) -> Settings:
    """Sizes and parts that all supported architectures have."""
    groups = config.num_key_value_heads
    return {
        "n_layers": config.num_hidden_layers,
        "d_model": config.hidden_size,
        "d_mlp": config.intermediate_size,
        "d_vocab": config.vocab_size,
        "d_head": head_width(config),
        "n_heads": config.num_attention_heads,
        "n_key_value_heads": None if groups == config.num_attention_heads else groups,
        "n_ctx": config.max_position_embeddings,
        "act_fn": activation(config),
        "eps": config.rms_norm_eps,
        "initializer_range": config.initializer_range,
        "normalization_type": "RMS",
        "final_rms": True,
        "gated_mlp": True,
        "use_attn_scale": True,
    }


def _rotary(config: Any) -> Settings:
    """Rotary positions; the local base and the linear factor apply as TransformerLens does it:
    to sliding layers alone, and to all others."""
    rope = rope_of(config)
    settings = {
        "positional_embedding_type": "rotary",
        "rotary_adjacent_pairs": False,
        "rotary_dim": head_width(config),
        "rotary_base": rope_theta(config),
    }
    if rope_type(config) == "linear":
        settings["rotary_scaling_factor"] = float(rope["factor"])
    if rope_type(config) == "llama3":
        settings["use_NTK_by_parts_rope"] = True
        settings["NTK_by_parts_factor"] = rope["factor"]
        settings["NTK_by_parts_low_freq_factor"] = rope["low_freq_factor"]
        settings["NTK_by_parts_high_freq_factor"] = rope["high_freq_factor"]
        settings["NTK_original_ctx_len"] = rope["original_max_position_embeddings"]
    return settings


def _windows(config: Any) -> Settings:
    """Which layers look back no further than the sliding window; empty if none does."""
    kinds = layer_types(config)
    if SLIDING not in kinds:
        return {}
    return {
        "use_local_attn": True,
        "window_size": config.sliding_window,
        "attn_types": ["local" if kind == SLIDING else "global" for kind in kinds],
        "rotary_base_local": float(rope_of(config, SLIDING)["rope_theta"]),
    }


def _gemma3(config: Any) -> Settings:
    """Norms before and after each part, and on queries and keys; its attention scale is set.

    The factor on embeddings and the 1 added to norm weights go into the weights.
    """
    cap = config.final_logit_softcapping
    return {
        "n_key_value_heads": config.num_key_value_heads,
        "use_qk_norm": True,
        "use_normalization_before_and_after": True,
        "attn_scale": float(config.query_pre_attn_scalar) ** 0.5,
        "output_logits_soft_cap": -1.0 if cap is None else float(cap),
    }


ARCHITECTURES: dict[str, Callable[[Any], Settings]] = {
    "Qwen3ForCausalLM": lambda _: {"use_qk_norm": True},
    # grouped attention even if each group is one head: the weights are converted that way
    "Qwen2ForCausalLM": lambda config: {"n_key_value_heads": config.num_key_value_heads},
    "Gemma3ForCausalLM": _gemma3,
    "LlamaForCausalLM": lambda _: {},
}


def read_config(folder: Path, name: str | None = None) -> PretrainedConfig:
    """The checkpoint's config; InputError for an architecture or variant not supported.

    Code that a checkpoint brings along is never run: if transformers has no class for it, an
    InputError names the model `name`.
    """
    try:
        raw = json.loads((folder / "config.json").read_text())
        architecture = (raw.get("architectures") or ["none"])[0]
    except (ValueError, AttributeError) as e:
        raise InputError(f"The file {folder / 'config.json'} is not a model's config.json.") from e
    if raw.get("auto_map") and str(raw.get("model_type")) not in CONFIG_MAPPING:
        raise own_code(name or str(folder))
    if architecture == "Gemma3ForConditionalGeneration":
        raise InputError(
            "This Gemma 3 reads images too, which is not supported; use a Gemma 3 text checkpoint "
            "(Gemma3ForCausalLM), such as google/gemma-3-1b-it."
        )
    if architecture not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise InputError(f"The architecture {architecture} is not supported; use one of: {known}.")
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    _refuse_variants(config)
    return config


def own_code(name: str) -> InputError:
    """The error for a checkpoint that transformers can read only by running its code."""
    return InputError(
        f"The model {name} needs code of its own, which is never run here; use a checkpoint that "
        "transformers can read without it."
    )


def _refuse_variants(config: Any) -> None:
    """Refuse whatever would be dropped silently."""
    unsupported = {
        "quantized weights": getattr(config, "quantization_config", None) is not None,
        "attention biases": bool(getattr(config, "attention_bias", False)),
        "MLP biases": bool(getattr(config, "mlp_bias", False)),
        "attention in both directions": bool(getattr(config, "use_bidirectional_attention", False)),
        f"the activation {activation(config)}": activation(config) not in SUPPORTED_ACTIVATIONS,
        f"scaled rotary embeddings ({rope_type(config)})": _unknown_scaling(config),
    }
    for what, present in unsupported.items():
        if present:
            raise InputError(f"This checkpoint has {what}, not supported; use one without.")


def _unknown_scaling(config: Any) -> bool:
    """TransformerLens scales by a factor everywhere but in sliding layers, as llama3 everywhere."""
    if SLIDING not in layer_types(config):
        return rope_type(config) not in ("default", "linear", "llama3")
    return rope_type(config, SLIDING) != "default" or rope_type(config) not in ("default", "linear")


def layer_types(config: Any) -> list[str]:
    """The kind of attention of each layer; full attention unless the config names others."""
    return getattr(config, "layer_types", None) or [FULL] * config.num_hidden_layers


def rope_of(config: Any, kind: str = FULL) -> dict[str, Any]:
    """Rotary settings of layers of this kind; Gemma 3 has different ones for sliding layers."""
    rope: dict[str, Any] = getattr(config, "rope_parameters", None) or {}
    return rope.get(kind) or rope


def rope_type(config: Any, kind: str = FULL) -> str:
    """How rotary embeddings of such layers are scaled; `default` means not at all."""
    return rope_of(config, kind).get("rope_type") or "default"


def rope_theta(config: PretrainedConfig) -> float:
    """The checkpoint's rotary base; transformers 5 keeps it in `rope_parameters`."""
    return float(rope_of(config).get("rope_theta", getattr(config, "rope_theta", 10_000.0)))


def head_width(config: Any) -> int:
    """The width of one head; the model's width divided by the heads unless the config gives it."""
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def activation(config: Any) -> str:
    """The name of the MLP's activation function; Gemma has its own name for it."""
    return getattr(config, "hidden_activation", None) or config.hidden_act


def context_length(config: PretrainedConfig, n_ctx: int | None) -> int:
    """The positions to set the model up for: `n_ctx`, or the model's own up to 4,096."""
    longest = int(config.max_position_embeddings)
    if n_ctx is None:
        return min(longest, MAX_DEFAULT_N_CTX)
    if not 0 < n_ctx <= longest:
        raise InputError(f"n_ctx={n_ctx} is out of range; choose 1 to {longest} for this model.")
    return n_ctx
