"""The supported architectures, and how to build TransformerLens's config for a checkpoint.

To add an architecture, add an entry to `ARCHITECTURES` that says how it differs from a plain
decoder with RMS norms, rotary embeddings and a gated MLP; the parity check then tests it.
TransformerLens picks a config by words in the path: it gives a small Llama the sizes of the 8B, and
a folder of Gemma 3 no config. So the configs are built here.
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
    """TransformerLens's config for a checkpoint whose config `read_config` accepted."""
    architecture = (config.architectures or ["none"])[0]
    settings = {**_decoder(config), **_rotary(config), **_windows(config)}
    return HookedTransformerConfig(
        **{**settings, **ARCHITECTURES[architecture](config)},
        original_architecture=architecture,
        dtype=dtype,
        init_weights=False,
    )


def _decoder(config: Any) -> Settings:
    """Sizes and settings common to all supported architectures."""
    n_kv = config.num_key_value_heads
    return {
        "n_layers": config.num_hidden_layers,
        "d_model": config.hidden_size,
        "d_mlp": config.intermediate_size,
        "d_vocab": config.vocab_size,
        "d_head": d_head(config),
        "n_heads": config.num_attention_heads,
        "n_key_value_heads": None if n_kv == config.num_attention_heads else n_kv,
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
    """Rotary embeddings; TransformerLens applies a linear factor to full-attention layers only."""
    rope = rope_of(config)
    settings = {
        "positional_embedding_type": "rotary",
        "rotary_adjacent_pairs": False,
        "rotary_dim": d_head(config),
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
    """Which layers use sliding-window attention; empty if none does."""
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
    """Norms before and after attention and MLP, norms on queries and keys, an attention scale.

    The embedding scale and the 1 that Gemma adds to norm weights are folded into the weights.
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
    # grouped even if every group is one head, because that is how its weights are converted
    "Qwen2ForCausalLM": lambda config: {"n_key_value_heads": config.num_key_value_heads},
    "Gemma3ForCausalLM": _gemma3,
    "LlamaForCausalLM": lambda _: {},
}


def read_config(folder: Path, name: str | None = None) -> PretrainedConfig:
    """The checkpoint's config.

    InputError if the architecture or variant is not supported, or if transformers could read the
    checkpoint only by running code that comes with it, which never happens here.
    """
    try:
        raw = json.loads((folder / "config.json").read_text())
        architecture = (raw.get("architectures") or ["none"])[0]
    except (ValueError, AttributeError) as e:
        raise InputError(
            f"{folder / 'config.json'} is not a model config; download the checkpoint again."
        ) from e
    if raw.get("auto_map") and str(raw.get("model_type")) not in CONFIG_MAPPING:
        raise needs_own_code(name or str(folder))
    if architecture == "Gemma3ForConditionalGeneration":
        raise InputError(
            "Multimodal Gemma 3 checkpoints are not supported; use a text-only one "
            "(Gemma3ForCausalLM), such as google/gemma-3-1b-it."
        )
    if architecture not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise InputError(f"The architecture {architecture} is not supported; use one of: {known}.")
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    _refuse_variants(config)
    return config


def needs_own_code(name: str) -> InputError:
    """The error for a checkpoint that transformers can load only by running its code."""
    return InputError(
        f"The model {name} needs its own Python code, which is never run here; use a checkpoint "
        "that transformers supports natively."
    )


def _refuse_variants(config: Any) -> None:
    """Refuse variants that loading would silently ignore."""
    unsupported = {
        "quantized weights": getattr(config, "quantization_config", None) is not None,
        "attention biases": bool(getattr(config, "attention_bias", False)),
        "MLP biases": bool(getattr(config, "mlp_bias", False)),
        "bidirectional attention": bool(getattr(config, "use_bidirectional_attention", False)),
        f"the activation {activation(config)}": activation(config) not in SUPPORTED_ACTIVATIONS,
        f"scaled rotary embeddings ({rope_type(config)})": _unsupported_scaling(config),
    }
    for what, present in unsupported.items():
        if present:
            raise InputError(
                f"This checkpoint has {what}, which is not supported; use one without."
            )


def _unsupported_scaling(config: Any) -> bool:
    """TransformerLens cannot scale sliding layers by a factor, or spare them llama3 scaling."""
    if SLIDING not in layer_types(config):
        return rope_type(config) not in ("default", "linear", "llama3")
    return rope_type(config, SLIDING) != "default" or rope_type(config) not in ("default", "linear")


def layer_types(config: Any) -> list[str]:
    """Each layer's kind of attention; full attention unless the config lists others."""
    return getattr(config, "layer_types", None) or [FULL] * config.num_hidden_layers


def rope_of(config: Any, kind: str = FULL) -> dict[str, Any]:
    """Rotary settings for layers of this kind; Gemma 3 has separate ones for sliding layers."""
    rope: dict[str, Any] = getattr(config, "rope_parameters", None) or {}
    return rope.get(kind) or rope


def rope_type(config: Any, kind: str = FULL) -> str:
    """How these layers scale rotary embeddings; `default` means not at all."""
    return rope_of(config, kind).get("rope_type") or "default"


def rope_theta(config: PretrainedConfig) -> float:
    """The rotary base, which transformers 5 keeps in `rope_parameters`."""
    return float(rope_of(config).get("rope_theta", getattr(config, "rope_theta", 10_000.0)))


def d_head(config: Any) -> int:
    """The width of one head: the config's head_dim, else hidden_size / num_attention_heads."""
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def activation(config: Any) -> str:
    """The MLP's activation function, which Gemma configs store under another key."""
    return getattr(config, "hidden_activation", None) or config.hidden_act


def context_length(config: PretrainedConfig, n_ctx: int | None) -> int:
    """`n_ctx` if given, else the model's maximum, capped at 4,096."""
    longest = int(config.max_position_embeddings)
    if n_ctx is None:
        return min(longest, MAX_DEFAULT_N_CTX)
    if not 0 < n_ctx <= longest:
        raise InputError(f"n_ctx={n_ctx} is out of range; choose 1 to {longest} for this model.")
    return n_ctx
