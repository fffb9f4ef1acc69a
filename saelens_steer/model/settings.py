"""Attention, rotary embeddings and length, for configs of any transformers version.

transformers 5 keeps rotary settings in `rope_parameters`, for Gemma 3 and OLMo 3 one set for each
kind of layer.
"""

from __future__ import annotations

from typing import Any

from transformers import PretrainedConfig

from saelens_steer.config import whole
from saelens_steer.errors import InputError

MAX_DEFAULT_N_CTX = 4096
UNSTATED_N_CTX = 2048
"""The default for models that state no maximum context, such as Bloom."""
FULL, SLIDING = "full_attention", "sliding_attention"
LOCAL = {"local": SLIDING, "global": FULL}
"""GPT-Neo's words."""


def attention_types(config: Any) -> list[str]:
    """Each layer's kind of attention; full attention unless the config names another."""
    listed = getattr(config, "layer_types", None)
    if listed is None:
        listed = getattr(config, "attention_layers", None)
    if listed is not None:
        return [LOCAL.get(str(kind), str(kind)) for kind in listed]
    windowed = getattr(config, "sliding_window", None) and getattr(
        config, "use_sliding_window", True
    )
    return [SLIDING if windowed else FULL] * config.num_hidden_layers


def window(config: Any) -> int:
    """How many positions a sliding layer sees; 0 if no layer slides."""
    if SLIDING not in attention_types(config):
        return 0
    return getattr(config, "sliding_window", None) or config.window_size


def rope_of(config: Any, kind: str = FULL) -> dict[str, Any]:
    """Rotary settings for layers of this kind; empty without rotary embeddings."""
    rope: dict[str, Any] = getattr(config, "rope_parameters", None) or {}
    return rope.get(kind) or rope


def rope_type(config: Any, kind: str = FULL) -> str:
    """How these layers scale rotary embeddings; `default` means not at all."""
    return rope_of(config, kind).get("rope_type") or "default"


def rope_theta(config: PretrainedConfig, kind: str = FULL) -> float:
    """The rotary base of layers of this kind."""
    return float(rope_of(config, kind).get("rope_theta", getattr(config, "rope_theta", 10_000.0)))


def d_head(config: Any) -> int:
    """The width of one head: the config's head_dim, else hidden_size / num_attention_heads."""
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def activation(config: Any) -> str:
    """The MLP's activation function, which configs store under several keys; Bloom's is fixed."""
    names = ("hidden_activation", "hidden_act", "activation_function")
    return next((found for name in names if (found := getattr(config, name, None))), "gelu_fast")


def longest_context(config: Any) -> int | None:
    """The longest context that the checkpoint states; None if it states none."""
    names = ("max_position_embeddings", "seq_length", "max_seq_len")
    found = (getattr(config, name, None) for name in names)
    return next((int(n) for n in found if n), None)


def context_length(config: PretrainedConfig, n_ctx: int | None) -> int:
    """`n_ctx` if given, else the model's maximum, capped at 4,096."""
    longest = longest_context(config)
    if longest is not None and longest < 0:
        raise InputError(
            f"config.json states a context of {longest} tokens: correct max_position_embeddings"
        )
    if n_ctx is None:
        return min(longest or UNSTATED_N_CTX, MAX_DEFAULT_N_CTX)
    n_ctx = whole("n_ctx", n_ctx)
    if not 0 < n_ctx <= (longest or n_ctx):
        most = longest or "any number"
        raise InputError(f"n_ctx={n_ctx} is out of range; choose 1 to {most} for this model.")
    return n_ctx
