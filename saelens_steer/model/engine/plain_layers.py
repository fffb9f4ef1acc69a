"""Build `Layer`s from a HookedTransformer, or explain why that is impossible."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor
from transformer_lens import HookedTransformer
from transformer_lens.utilities.architectures import POST_NORM_ARCHITECTURES

from saelens_steer.model.engine.layers import Layer, Norm, linear


def plain_layers(model: HookedTransformer, n_ctx: int, from_layer: int = 0) -> list[Layer]:
    """The layers from `from_layer` on, for n_ctx positions; first check that `why_not` is None."""
    tables: dict[str, Any] = {}
    return [_layer(block, n_ctx, tables) for block in model.blocks[from_layer:]]


def why_not(model: HookedTransformer) -> str | None:
    """Why its layers cannot be run as `Layer`s; None if they can."""
    cfg = model.cfg
    unknown = [name for name, usual in USUAL.items() if getattr(cfg, name, usual) != usual]
    if unknown:
        return f"the model has {', '.join(unknown)}"
    if cfg.original_architecture in POST_NORM_ARCHITECTURES:
        return "the model has norms only after attention and MLP"
    if any(n is not None and n.length != cfg.d_head for n in (b.attn.q_norm for b in model.blocks)):
        return "the model normalises the queries and keys of all heads together"
    if cfg.normalization_type not in ("RMS", "RMSPre", "LN", "LNPre"):
        return f"the model's norm is {cfg.normalization_type}"
    if cfg.positional_embedding_type not in ("rotary", "standard"):
        return f"the model's positional embedding is {cfg.positional_embedding_type}"
    if cfg.is_layer_norm_activation():
        return f"the model's activation is {cfg.act_fn}"
    rotary = cfg.positional_embedding_type == "rotary"
    return "the model rotates heads of odd width" if rotary and cfg.d_head % 2 else None


USUAL: dict[str, Any] = {
    "attn_only": False,
    "attention_dir": "causal",
    "use_attn_result": False,
    "use_split_qkv_input": False,
    "use_attn_in": False,
    "use_hook_mlp_in": False,
    "ungroup_grouped_query_attention": False,
    "use_attention_sinks": False,
    "use_logn_attn": False,
    "use_dynamic_ntk_rope": False,
    "clip_qkv": None,
    "num_experts": None,
    "load_in_4bit": False,
    "n_devices": 1,
}
"""The TransformerLens settings that `Layer` implements."""


@torch.no_grad()
def _layer(block: Any, n_ctx: int, tables: dict[str, Any]) -> Layer:
    attn, cfg = block.attn, block.cfg
    n_kv, order = cfg.n_key_value_heads or cfg.n_heads, _column_order(cfg)
    (W_Q, W_K, W_V), (b_Q, b_K, b_V) = (_grouped(attn, kind) for kind in "Wb")
    W_QKV = [W_Q[..., order], W_K[..., order], W_V]
    b_QKV = [b_Q[..., order], b_K[..., order], b_V]
    qk_norm = None
    if attn.q_norm is not None:
        norms = (attn.q_norm, cfg.n_heads), (attn.k_norm, n_kv)
        qk_norm = torch.cat([norm.w[order].expand(n, -1) for norm, n in norms])
    post, cap = cfg.use_normalization_before_and_after, cfg.attn_scores_soft_cap
    return Layer(
        ln1=_norm(block.ln1, cfg),
        ln2=_norm(block.ln2, cfg),
        ln1_post=_norm(block.ln1_post, cfg) if post else None,
        ln2_post=_norm(block.ln2_post, cfg) if post else None,
        W_QKV=torch.cat([w.transpose(0, 1).flatten(1) for w in W_QKV], dim=1),
        b_QKV=_unless_zero(torch.cat([b.flatten() for b in b_QKV])),
        qk_norm=qk_norm,
        W_O=attn.W_O.detach().flatten(0, 1),
        b_O=_unless_zero(attn.b_O),
        mlp=_mlp(block.mlp, cfg.act_fn),
        rotary=_rotary(attn, n_ctx, order, tables),
        n_heads=cfg.n_heads,
        n_kv=n_kv,
        d_head=cfg.d_head,
        eps=cfg.eps,
        scale=1 / float(attn.attn_scale),
        soft_cap=cap if cap is not None and cap > 0 else None,
        window=cfg.window_size if attn.attn_type == "local" else None,
        parallel=cfg.parallel_attn_mlp,
    )


def _grouped(attn: Any, kind: str) -> Sequence[Tensor]:
    """Weights or biases of queries, keys and values, not repeated for each query head."""
    own = [getattr(attn, f"_{kind}_{n}", None) for n in "QKV"]
    return [
        getattr(attn, f"{kind}_{n}") if x is None else x for n, x in zip("QKV", own, strict=True)
    ]


def _column_order(cfg: Any) -> Int[Tensor, " d_head"] | slice:
    """The order of a head's columns that puts each rotated pair half a head apart.

    `Layer` rotates whole heads. Scores do not depend on the order, and columns that the model does
    not rotate get the angle 0.
    """
    n, partly = cfg.rotary_dim, cfg.rotary_dim != cfg.d_head
    if cfg.positional_embedding_type != "rotary" or not (partly or cfg.rotary_adjacent_pairs):
        return slice(None)
    columns, half = torch.arange(cfg.d_head), (cfg.d_head - n) // 2
    pairs = columns[:n].view(-1, 2).T if cfg.rotary_adjacent_pairs else columns[:n].view(2, -1)
    return torch.cat([pairs[0], columns[n : n + half], pairs[1], columns[n + half :]])


def _rotary(attn: Any, n_ctx: int, order: Any, tables: dict[str, Any]) -> Any:
    """TransformerLens's own table, shared by layers of one kind."""
    cfg = attn.cfg
    if cfg.positional_embedding_type != "rotary":
        return None
    if attn.attn_type not in tables:
        n, base = cfg.rotary_dim, attn._rotary_base()
        sin, cos = attn.calculate_sin_cos_rotary(n, n_ctx, base=base, dtype=cfg.dtype)
        still = (0, cfg.d_head - n)
        sin, cos = F.pad(sin, still)[:, order], F.pad(cos, still, value=1.0)[:, order]
        sin[:, : cfg.d_head // 2] *= -1
        device = attn.W_Q.device
        tables[attn.attn_type] = cos[:, None].to(device), sin[:, None].to(device)
    return tables[attn.attn_type]


def _norm(module: Any, cfg: Any) -> Norm:
    """RMSNorm or LayerNorm over the last dimension, with the module's weights if it has them."""
    weight, bias = (getattr(module, name, None) for name in ("w", "b"))
    shape, eps = (cfg.d_model,), cfg.eps
    if cfg.normalization_type.startswith("LN"):
        return lambda x: F.layer_norm(x, shape, weight, bias, eps)
    return lambda x: F.rms_norm(x, shape, weight, eps)


def _mlp(mlp: Any, act_name: str) -> Callable[[Tensor], Tensor]:
    W_in, W_out = mlp.W_in.detach(), mlp.W_out.detach()
    b_in, b_out = _unless_zero(mlp.b_in), _unless_zero(mlp.b_out)
    act: Any = FAST.get(act_name, mlp.act_fn)
    if not hasattr(mlp, "W_gate"):
        return lambda x: linear(act(linear(x, W_in, b_in)), W_out, b_out)
    W_gate = mlp.W_gate.detach()

    def gated(x: Tensor) -> Tensor:
        hidden = act(x @ W_gate).mul_(x @ W_in)
        return linear(hidden if b_in is None else hidden + b_in, W_out, b_out)

    return gated


FAST: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": partial(F.silu, inplace=True),
    **dict.fromkeys(("gelu_new", "gelu_fast"), partial(F.gelu, approximate="tanh")),
}
"""Activations that torch computes in one pass, unlike TransformerLens's functions."""


def _unless_zero(bias: Tensor) -> Tensor | None:
    bias = bias.detach()
    return bias if bool(bias.any()) else None
