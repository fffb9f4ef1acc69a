"""TransformerLens's config for each architecture that loads as a HookedTransformer.

TransformerLens's own config is used where it is right (`LIBRARY`), and one built here where it is
not (`OWN`). Rotary embeddings, windows and head widths are always read from the checkpoint, since
TransformerLens silently ignores most of their variants. `why_bridge` says what neither can
represent.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from typing import Any

import torch
from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformer_lens.loading_from_pretrained import convert_hf_model_config
from transformer_lens.utilities.activation_functions import SUPPORTED_ACTIVATIONS
from transformers import PretrainedConfig

from saelens_steer.errors import InputError
from saelens_steer.model.settings import (
    FULL,
    SLIDING,
    activation,
    attention_types,
    d_head,
    rope_of,
    rope_theta,
    rope_type,
    window,
)

Settings = dict[str, Any]
FAMILY_WORDS = ("llama", "gemma", "olmo")
"""Words in a path from which TransformerLens picks a config, whatever the folder holds."""


def hooked_config(config: PretrainedConfig, dtype: torch.dtype) -> HookedTransformerConfig:
    """TransformerLens's config for a checkpoint without a `why_bridge`."""
    architecture = (config.architectures or ["none"])[0]
    base = OWN.get(architecture, _librarys)
    settings = {**base(config), **_rotary(config), **_windows(config)}
    return HookedTransformerConfig.from_dict(
        {
            **settings,
            "original_architecture": architecture,
            "d_vocab": config.vocab_size,
            "dtype": dtype,
            "init_weights": False,
            "tokenizer_name": None,
            "trust_remote_code": False,
        }
    )


def _librarys(config: PretrainedConfig) -> Settings:
    """TransformerLens's own settings, read from a folder with a neutral name."""
    with tempfile.TemporaryDirectory(prefix="config-") as folder:
        if any(word in folder.lower() for word in FAMILY_WORDS):
            raise InputError(
                f"The folder for temporary files, {tempfile.gettempdir()}, has the name of a model "
                "family, which misleads TransformerLens; set TMPDIR to another folder."
            )
        config.save_pretrained(folder)
        return convert_hf_model_config(folder)


def _decoder(config: Any) -> Settings:
    """A decoder with RMS norms, a gated MLP and grouped heads."""
    n_kv = config.num_key_value_heads
    return {
        "n_layers": config.num_hidden_layers,
        "d_model": config.hidden_size,
        "d_mlp": config.intermediate_size,
        "d_head": d_head(config),
        "n_heads": config.num_attention_heads,
        "n_key_value_heads": None if n_kv == config.num_attention_heads else n_kv,
        "n_ctx": config.max_position_embeddings,
        "act_fn": activation(config),
        "eps": getattr(config, "rms_norm_eps", 1e-5),
        "normalization_type": "RMS",
        "final_rms": True,
        "gated_mlp": True,
    }


def _gemma(config: Any) -> Settings:
    """Grouped even if every group is one head, because that is how its weights are converted.

    The embedding scale and the 1 that Gemma adds to norm weights are folded into the weights.
    """
    return {**_decoder(config), "n_key_value_heads": config.num_key_value_heads}


def _gemma2(config: Any) -> Settings:
    """Norms before and after attention and MLP, an attention scale, soft caps."""
    caps = {
        "attn_scores_soft_cap": getattr(config, "attn_logit_softcapping", None),
        "output_logits_soft_cap": config.final_logit_softcapping,
    }
    return {
        **_gemma(config),
        **{name: float(cap) for name, cap in caps.items() if cap is not None},
        "use_normalization_before_and_after": True,
        "attn_scale": float(config.query_pre_attn_scalar) ** 0.5,
    }


def _olmo(config: Any) -> Settings:
    """LayerNorms without weights, which the converter fills in, and clipped queries and keys."""
    layer_norms = {"normalization_type": "LN", "final_rms": False, "eps": 1e-5}
    return {**_decoder(config), **layer_norms, "clip_qkv": config.clip_qkv}


def _layer_norms(config: Any) -> Settings:
    """A decoder with LayerNorms and a plain MLP: GPT-2 and Phi, by transformers' common names."""
    return {
        "n_layers": config.num_hidden_layers,
        "d_model": config.hidden_size,
        "d_head": config.hidden_size // config.num_attention_heads,
        "n_heads": config.num_attention_heads,
        "n_ctx": config.max_position_embeddings,
        "normalization_type": "LN",
    }


def _gpt2(config: Any) -> Settings:
    return {
        **_layer_norms(config),
        "d_mlp": config.n_inner or 4 * config.n_embd,
        "act_fn": config.activation_function,
        "eps": config.layer_norm_epsilon,
        "use_attn_scale": config.scale_attn_weights,
        "scale_attn_by_inverse_layer_idx": config.scale_attn_by_inverse_layer_idx,
    }


def _phi(config: Any) -> Settings:
    return {
        **_layer_norms(config),
        "d_mlp": config.intermediate_size,
        "act_fn": config.hidden_act,
        "eps": config.layer_norm_eps,
        "parallel_attn_mlp": True,
    }


OWN: dict[str, Callable[[Any], Settings]] = {
    "GPT2LMHeadModel": _gpt2,
    "PhiForCausalLM": _phi,
    "LlamaForCausalLM": _decoder,
    "Qwen2ForCausalLM": _gemma,  # grouped in the same way
    "Qwen3ForCausalLM": lambda config: {**_decoder(config), "use_qk_norm": True},
    "GemmaForCausalLM": _gemma,
    "Gemma2ForCausalLM": _gemma2,
    "Gemma3ForCausalLM": lambda config: {**_gemma2(config), "use_qk_norm": True},
    "OlmoForCausalLM": _olmo,
    "Olmo2ForCausalLM": _decoder,
}

LIBRARY = (
    "GPTNeoXForCausalLM",
    "GPTNeoForCausalLM",
    "GPTJForCausalLM",
    "OPTForCausalLM",
    "BloomForCausalLM",
    "Phi3ForCausalLM",
    "MistralForCausalLM",
    "MixtralForCausalLM",
    "Olmo3ForCausalLM",
    "OlmoeForCausalLM",
    "GptOssForCausalLM",
)


def _rotary(config: Any) -> Settings:
    """Rotary embeddings as the checkpoint has them; nothing for architectures without."""
    rope = rope_of(config)
    if not rope:
        return {}
    width = d_head(config)
    settings = {
        "d_head": width,
        "positional_embedding_type": "rotary",
        "rotary_dim": int(width * rope.get("partial_rotary_factor", 1.0)),
        "rotary_base": rope_theta(config),
        "rotary_base_local": rope_theta(config, SLIDING),
    }
    return {**settings, **_scaling(rope, rope_type(config, SLIDING) == "default")}


def _scaling(rope: dict[str, Any], sliding_unscaled: bool) -> Settings:
    """Linear, llama3 and yarn scaling, as TransformerLens's settings."""
    kind = rope.get("rope_type")
    if kind == "linear":
        return {"rotary_scaling_factor": float(rope["factor"])}
    if kind == "llama3":
        return {
            "use_NTK_by_parts_rope": True,
            "NTK_by_parts_factor": rope["factor"],
            "NTK_by_parts_low_freq_factor": rope["low_freq_factor"],
            "NTK_by_parts_high_freq_factor": rope["high_freq_factor"],
            "NTK_original_ctx_len": rope["original_max_position_embeddings"],
        }
    if kind == "yarn":
        factor = float(rope["factor"])
        return {
            "use_yarn_rope": True,
            "yarn_factor": factor,
            "yarn_attention_factor": rope.get("attention_factor") or 0.1 * math.log(factor) + 1.0,
            "yarn_beta_fast": float(rope.get("beta_fast") or 32),
            "yarn_beta_slow": float(rope.get("beta_slow") or 1),
            "yarn_original_max_position_embeddings": rope["original_max_position_embeddings"],
            "yarn_truncate": rope.get("truncate", True),
            "yarn_global_attn_only": sliding_unscaled,
        }
    return {}


def _windows(config: Any) -> Settings:
    """Which layers use sliding-window attention; none unless the config says so."""
    kinds = attention_types(config)
    if SLIDING not in kinds:
        return {"use_local_attn": False, "attn_types": None}
    return {
        "use_local_attn": True,
        "window_size": window(config),
        "attn_types": ["local" if kind == SLIDING else "global" for kind in kinds],
    }


def why_bridge(config: Any) -> str | None:
    """What a HookedTransformer cannot represent of this checkpoint; None if it can represent it."""
    architecture = (config.architectures or ["none"])[0]
    if architecture not in OWN and architecture not in LIBRARY:
        return f"TransformerLens has no HookedTransformer for {architecture}"
    found = [what for what, present in _variants(config, architecture).items() if present]
    return f"a HookedTransformer for {architecture} would ignore {found[0]}" if found else None


def _variants(config: Any, architecture: str) -> dict[str, bool]:
    """Variants that TransformerLens's modules or converters would silently ignore."""
    given: Callable[[str], Any] = lambda name: getattr(config, name, None)  # noqa: E731
    heads, grouped = given("num_attention_heads"), given("num_key_value_heads")
    kinds = set(attention_types(config))
    return {
        "attention biases": bool(given("attention_bias"))
        and architecture not in ("GPTNeoXForCausalLM", "GptOssForCausalLM"),
        "attention without biases": given("attention_bias") is False
        and architecture in ("GPTNeoXForCausalLM", "GptOssForCausalLM"),
        "MLP biases": bool(given("mlp_bias")),
        "norms on queries and keys": bool(given("qk_layernorm")),
        "norms after the layers": given("do_layer_norm_before") is False,
        "the projected embedding": architecture == "OPTForCausalLM"
        and given("word_embed_proj_dim") != config.hidden_size,
        "layers without biases": given("enable_bias") is False,
        "norms without weights": given("layer_norm_elementwise_affine") is False,
        "the residual taken after the norm": bool(
            given("apply_residual_connection_post_layernorm")
        ),
        "the width of its MLP": architecture in ("GPTJForCausalLM", "GPTNeoForCausalLM")
        and (given("n_inner") or given("intermediate_size") or 4 * config.hidden_size)
        != 4 * config.hidden_size,
        "grouped queries": architecture in ("Olmo2ForCausalLM", "OlmoForCausalLM", "PhiForCausalLM")
        and grouped not in (None, heads),
        f"the activation {activation(config)}": activation(config) not in SUPPORTED_ACTIVATIONS,
        f"attention of type {', '.join(sorted(kinds - {FULL, SLIDING}))}": bool(
            kinds - {FULL, SLIDING}
        ),
        f"scaled rotary embeddings ({rope_type(config)})": _unsupported_scaling(config),
    }


def _unsupported_scaling(config: Any) -> bool:
    """Whether TransformerLens would scale some layers wrongly, full or sliding."""
    rope, full = rope_of(config), rope_type(config)
    if full not in ("default", "linear", "llama3", "yarn"):
        return True
    if full == "yarn" and (rope.get("mscale") or rope.get("factor") is None):
        return True
    if SLIDING not in attention_types(config):
        return False
    sliding = rope_of(config, SLIDING)
    alike = {**sliding, "rope_theta": None} == {**rope, "rope_theta": None}
    if rope_type(config, SLIDING) == "default":
        return full == "llama3"
    return full == "linear" or not alike
