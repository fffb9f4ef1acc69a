"""Build `Layer`s from a HookedTransformer, or explain why that is impossible."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from saelens_steer.model.engine.layers import Layer, Norm, linear
from saelens_steer.model.model_class import Model, is_bridge


def plain_layers(model: Model, n_ctx: int, from_layer: int = 0) -> list[Layer]:
    """The layers from `from_layer` on, for n_ctx positions; first check that `why_not` is None."""
    tables: dict[str, Any] = {}
    return [_layer(block, n_ctx, tables) for block in model.blocks[from_layer:]]


def why_not(model: Model, from_layer: int = 0) -> str | None:
    """Why the layers from `from_layer` on cannot be run as `Layer`s; None if they can."""
    if is_bridge(model):
        return "a TransformerBridge runs the Hugging Face module as a whole"
    unknown = [name for name, usual in USUAL.items() if getattr(model.cfg, name, usual) != usual]
    if unknown:
        return f"the model has {', '.join(unknown)}"
    if model.cfg.normalization_type not in ("RMS", "RMSPre", "LN", "LNPre"):
        return f"the model's norm is {model.cfg.normalization_type}"
    if model.cfg.positional_embedding_type not in ("rotary", "standard"):
        return f"the model's positional embedding is {model.cfg.positional_embedding_type}"
    rotary = model.cfg.positional_embedding_type == "rotary"
    if rotary and (model.cfg.rotary_adjacent_pairs or model.cfg.rotary_dim != model.cfg.d_head):
        return "the model rotates only part of each head, or adjacent pairs"
    hooked = _hooked(model, from_layer)
    return f"the model has hooks attached, at {hooked}" if hooked else None


USUAL: dict[str, Any] = {
    "attn_only": False,
    "parallel_attn_mlp": False,
    "attention_dir": "causal",
    "use_attn_result": False,
    "use_split_qkv_input": False,
    "use_attn_in": False,
    "use_hook_mlp_in": False,
    "ungroup_grouped_query_attention": False,
    "use_attention_sinks": False,
    "use_logn_attn": False,
    "use_dynamic_ntk_rope": False,
    "scale_attn_by_inverse_layer_idx": False,
    "clip_qkv": None,
    "num_experts": None,
    "load_in_4bit": False,
    "n_devices": 1,
    "attn_scores_soft_cap": -1.0,
}
"""The TransformerLens settings that `Layer` implements."""


def _hooked(model: Any, from_layer: int) -> str | None:
    """The first hook of these layers that has a function attached."""
    for name, point in model.hook_dict.items():
        inside = name.startswith("blocks.") and int(name.split(".")[1]) >= from_layer
        if inside and (point._forward_hooks or point._forward_pre_hooks):
            return name
    return None


@torch.no_grad()
def _layer(block: Any, n_ctx: int, tables: dict[str, Any]) -> Layer:
    attn, cfg = block.attn, block.cfg
    n_kv = cfg.n_key_value_heads or cfg.n_heads
    W_QKV = [attn.W_Q, *_unrepeated(attn, "W")]
    b_QKV = [attn.b_Q, *_unrepeated(attn, "b")]
    qk_norm = None
    if attn.q_norm is not None:
        qk_norm = torch.cat([attn.q_norm.w.expand(cfg.n_heads, -1), attn.k_norm.w.expand(n_kv, -1)])
    post = cfg.use_normalization_before_and_after
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
        rotary=_rotary(attn, n_ctx, tables),
        n_heads=cfg.n_heads,
        n_kv=n_kv,
        d_head=cfg.d_head,
        eps=cfg.eps,
        scale=1 / float(attn.attn_scale),
        window=cfg.window_size if attn.attn_type == "local" else None,
    )


def _unrepeated(attn: Any, kind: str) -> Sequence[Tensor]:
    """Weights or biases of keys and values, not repeated for each query head."""
    grouped = [getattr(attn, f"_{kind}_{name}", None) for name in "KV"]
    return [
        getattr(attn, f"{kind}_{n}") if g is None else g for n, g in zip("KV", grouped, strict=True)
    ]


def _rotary(attn: Any, n_ctx: int, tables: dict[str, Any]) -> Any:
    """TransformerLens's own table, shared by layers of one kind."""
    cfg = attn.cfg
    if cfg.positional_embedding_type != "rotary":
        return None
    local = attn.attn_type == "local" and cfg.rotary_base_local is not None
    if attn.attn_type not in tables:
        base = cfg.rotary_base_local if local else cfg.rotary_base
        sin, cos = attn.calculate_sin_cos_rotary(cfg.rotary_dim, n_ctx, base=base, dtype=cfg.dtype)
        signs = torch.ones(cfg.rotary_dim).to(sin)
        signs[: cfg.rotary_dim // 2] = -1
        device = attn.W_Q.device
        tables[attn.attn_type] = cos[:, None].to(device), (sin * signs)[:, None].to(device)
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
    act = _silu if act_name == "silu" else mlp.act_fn
    if not hasattr(mlp, "W_gate"):
        return lambda x: linear(act(linear(x, W_in, b_in)), W_out, b_out)
    W_gate = mlp.W_gate.detach()

    def gated(x: Tensor) -> Tensor:
        hidden = act(x @ W_gate).mul_(x @ W_in)
        return linear(hidden if b_in is None else hidden + b_in, W_out, b_out)

    return gated


def _silu(x: Tensor) -> Tensor:
    return F.silu(x, inplace=True)


def _unless_zero(bias: Tensor) -> Tensor | None:
    bias = bias.detach()
    return bias if bool(bias.any()) else None
