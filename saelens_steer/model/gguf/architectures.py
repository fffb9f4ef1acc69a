"""The keys of each architecture that loads from a GGUF file, as settings of transformers' config.

Their meaning follows llama.cpp's load_hparams; if a file leaves one out, llama.cpp's default
applies.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from saelens_steer.errors import InputError
from saelens_steer.model.gguf.keys import Keys
from saelens_steer.model.gguf.rope import Rope, rope_of_file
from saelens_steer.model.settings import FULL, SLIDING

Settings = dict[str, Any]


@dataclass(frozen=True)
class Sizes:
    """The sizes that every architecture states."""

    n_layers: int
    d_model: int
    n_heads: int
    n_ctx: int


@dataclass(frozen=True)
class Architecture:
    """transformers' model type, and the settings besides the sizes."""

    model_type: str
    settings: Callable[[Keys, Sizes], Settings]


def _decoder(keys: Keys, sizes: Sizes) -> Settings:
    """A decoder with RMS norms, a gated MLP and heads that may be grouped."""
    width = keys.take("attention.key_length", sizes.d_model // sizes.n_heads)
    keys.expect("attention.value_length", width)
    keys.expect("attention.scale", 0.0, width**-0.5)
    return {
        "head_dim": width,
        # without it transformers' reader would leave the queries and keys of a Llama permuted
        "num_key_value_heads": keys.number("attention.head_count_kv"),
        "intermediate_size": keys.number("feed_forward_length"),
        "rms_norm_eps": keys.take("attention.layer_norm_rms_epsilon"),
    }


def _rotated(keys: Keys, width: int) -> Rope:
    """Rotary embeddings over whole heads."""
    keys.expect("rope.dimension_count", width)
    return rope_of_file(keys, width)


def _plain(keys: Keys, sizes: Sizes) -> Settings:
    """Qwen 2.5 and Qwen 3: every layer sees the whole context, so no window may be shorter."""
    settings = _decoder(keys, sizes)
    window = keys.take("attention.sliding_window", 0)
    if 0 < window < sizes.n_ctx:
        raise keys.refused("attention.sliding_window", window)
    return {**settings, "rope_parameters": _rotated(keys, settings["head_dim"])}


def _llama(keys: Keys, sizes: Sizes) -> Settings:
    biases = {"attention_bias": "blk.0.attn_q.bias", "mlp_bias": "blk.0.ffn_up.bias"}
    present = {setting: name in keys.file.shapes for setting, name in biases.items()}
    return {**_plain(keys, sizes), **present}


def _gemma(keys: Keys, sizes: Sizes, period: int, largest: int) -> Settings:
    """Gemma 2 and 3: all but every n-th layer slide; the largest scales attention differently."""
    settings = _decoder(keys, sizes)
    scaled_by_heads = sizes.n_layers == largest
    scalar = sizes.d_model // sizes.n_heads if scaled_by_heads else settings["head_dim"]
    window = keys.take("attention.sliding_window", 0)
    pattern = keys.take("attention.sliding_window_pattern", None)
    sliding = _sliding(keys, pattern or period, sizes.n_layers) if window else []
    return {
        **settings,
        "query_pre_attn_scalar": scalar,
        "sliding_window": window or sizes.n_ctx,  # transformers needs one even if no layer slides
        "layer_types": [SLIDING if s else FULL for s in sliding or [False] * sizes.n_layers],
    }


def _sliding(keys: Keys, pattern: int | list[Any], n_layers: int) -> list[bool]:
    """Which layers slide, from a list or the distance between those that do not."""
    if isinstance(pattern, int):
        return [layer % pattern < pattern - 1 for layer in range(n_layers)]
    if len(pattern) != n_layers:
        why = f"which is not one value for each of {n_layers} layers"
        raise keys.refused("attention.sliding_window_pattern", pattern, why)
    return [bool(slides) for slides in pattern]


def _gemma2(keys: Keys, sizes: Sizes) -> Settings:
    if "attention.sliding_window" not in keys.left:
        raise InputError(
            f"{keys.file.path} lacks gemma2.attention.sliding_window: convert it again"
        )
    settings = _gemma(keys, sizes, period=2, largest=46)
    rope = _rotated(keys, settings["head_dim"])
    keys.expect("rope.freq_base_swa", rope["rope_theta"])
    caps = {name: keys.take(name) or None for name in CAPS}
    return {**settings, "rope_parameters": rope, **caps}


CAPS = ("attn_logit_softcapping", "final_logit_softcapping")


def _gemma3(keys: Keys, sizes: Sizes) -> Settings:
    settings = _gemma(keys, sizes, period=6, largest=62)
    local = {"rope_type": "default", "rope_theta": keys.take("rope.freq_base_swa", 10_000.0)}
    full = _rotated(keys, settings["head_dim"])
    return {
        **settings,
        "rope_parameters": {FULL: full, SLIDING: local},
        "final_logit_softcapping": keys.take("final_logit_softcapping", 0.0) or None,
    }


def _phi3(keys: Keys, sizes: Sizes) -> Settings:
    """Phi 3 rotates a part of each head, and the mini model's window is in all layers."""
    settings = _decoder(keys, sizes)
    width = settings.pop("head_dim")
    if width != sizes.d_model // sizes.n_heads:
        raise keys.refused("attention.key_length", width)
    rotated = keys.take("rope.dimension_count", width)
    part = {"partial_rotary_factor": rotated / width}
    window = keys.take("attention.sliding_window", 0) or None
    rope = {**rope_of_file(keys, rotated), **part}
    return {**settings, "sliding_window": window, "rope_parameters": rope}


def _gpt2(keys: Keys, sizes: Sizes) -> Settings:
    keys.expect("attention.head_count_kv", sizes.n_heads)
    return {
        "n_inner": keys.number("feed_forward_length"),
        "layer_norm_epsilon": keys.take("attention.layer_norm_epsilon"),
    }


ARCHITECTURES: dict[str, Architecture] = {
    "llama": Architecture("llama", _llama),
    "qwen2": Architecture("qwen2", _plain),
    "qwen3": Architecture("qwen3", _plain),
    "gemma2": Architecture("gemma2", _gemma2),
    "gemma3": Architecture("gemma3_text", _gemma3),
    "phi3": Architecture("phi3", _phi3),
    "gpt2": Architecture("gpt2", _gpt2),
}
"""By llama.cpp's names. transformers cannot read Gemma 1, OLMo, NeoX, Phi 2 or OPT."""
