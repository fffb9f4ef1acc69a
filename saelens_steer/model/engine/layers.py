"""The layers of a HookedTransformer as plain arithmetic, without its hooks.

TransformerLens lays its weights out by head and transposes them at every call, so that every
intermediate value has a hook. A sweep needs none of these: here each layer's weights are laid out
once (`layout.py`), for a handful of matrix products.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

Norm = Callable[[Tensor], Tensor]
Heads = Float[Tensor, "*batch _ _ d_head"]
Touch = Callable[[str, Tensor], Tensor]
"""(hook_attn_out, hook_resid_mid, hook_mlp_out or hook_resid_post; its value) ↦ its new value."""
Attend = Callable[[Heads, Heads, Heads], Heads]
"""Queries, keys and values, rotated, as they come out of a layer ↦ what the heads read (z)."""


def untouched(name: str, value: Tensor) -> Tensor:  # noqa: ARG001
    """Leave every hook as it is."""
    return value


@dataclass(frozen=True)
class Layer:
    """One layer: its weights for matrix products, and its norms."""

    ln1: Norm
    ln2: Norm
    ln1_post: Norm | None
    ln2_post: Norm | None
    W_QKV: Float[Tensor, "d_model qkv"]
    b_QKV: Float[Tensor, " qkv"] | None
    qk_norm: Float[Tensor, "heads d_head"] | None
    """Weights of the norms on queries, then keys."""
    W_O: Float[Tensor, "z d_model"]
    b_O: Float[Tensor, " d_model"] | None
    mlp: Callable[[Tensor], Tensor]
    rotary: tuple[Float[Tensor, "n_ctx 1 d_head"], Float[Tensor, "n_ctx 1 d_head"]] | None
    """Cosines, and sines with the sign of each half."""
    n_heads: int
    n_kv: int
    d_head: int
    eps: float
    scale: float
    """What scores are multiplied by."""
    window: int | None
    """How far back the layer looks; None without limit."""

    def qkv(
        self, x: Float[Tensor, "*batch pos d_model"], positions: Int[Tensor, " pos"]
    ) -> tuple[Heads, Heads, Heads]:
        """Queries [*batch, pos, n_heads, d_head], keys and values [*batch, pos, n_kv, d_head]."""
        both = self.n_heads + self.n_kv
        joint = linear(self.ln1(x), self.W_QKV, self.b_QKV).unflatten(-1, (-1, self.d_head))
        qk, v = joint[..., :both, :], joint[..., both:, :]
        qk = self._turned(qk, positions)
        return qk[..., : self.n_heads, :], qk[..., self.n_heads :, :], v

    def q(self, x: Float[Tensor, "*batch pos d_model"], positions: Int[Tensor, " pos"]) -> Heads:
        """Queries alone."""
        return self._part(x, positions, slice(0, self.n_heads))

    def kv(
        self, x: Float[Tensor, "*batch pos d_model"], positions: Int[Tensor, " pos"]
    ) -> tuple[Heads, Heads]:
        """Keys and values alone."""
        joint = self._part(x, positions, slice(self.n_heads, None))
        return joint[..., : self.n_kv, :], joint[..., self.n_kv :, :]

    def _part(self, x: Tensor, positions: Tensor, heads: slice) -> Heads:
        """Some heads of queries, keys and values together; values are not rotated."""
        columns = slice(heads.start * self.d_head, heads.stop and heads.stop * self.d_head)
        bias = None if self.b_QKV is None else self.b_QKV[columns]
        joint = linear(self.ln1(x), self.W_QKV[:, columns], bias)
        joint = joint.unflatten(-1, (-1, self.d_head))
        turned = self.n_heads + self.n_kv - heads.start  # of them, so many are queries or keys
        qk = self._turned(joint[..., :turned, :], positions, heads.start)
        return torch.cat([qk, joint[..., turned:, :]], dim=-2)

    def _turned(self, qk: Heads, positions: Int[Tensor, " pos"], first: int = 0) -> Heads:
        """Queries and keys under their norms and rotations; `first` is the first one's number."""
        if self.qk_norm is not None:
            weights = self.qk_norm[first : first + qk.shape[-2]]
            qk = F.rms_norm(qk, (self.d_head,), eps=self.eps) * weights
        if self.rotary is None:
            return qk
        cos, sin = (table[positions] for table in self.rotary)
        other_half = qk.roll(self.d_head // 2, -1).mul_(sin)
        return (qk * cos).add_(other_half)

    def rest(
        self, x: Float[Tensor, "*batch pos d_model"], z: Heads, touch: Touch = untouched
    ) -> Float[Tensor, "*steered pos d_model"]:
        """From what the heads read to the residual after the layer."""
        attn_out = linear(z.flatten(-2), self.W_O, self.b_O)
        if self.ln1_post is not None:
            attn_out = self.ln1_post(attn_out)
        resid_mid = touch("hook_resid_mid", x + touch("hook_attn_out", attn_out))
        mlp_out = self.mlp(self.ln2(resid_mid))
        if self.ln2_post is not None:
            mlp_out = self.ln2_post(mlp_out)
        return touch("hook_resid_post", resid_mid + touch("hook_mlp_out", mlp_out))

    def run(
        self,
        x: Float[Tensor, "*batch pos d_model"],
        positions: Int[Tensor, " pos"],
        attend: Attend,
        touch: Touch = untouched,
    ) -> Float[Tensor, "*steered pos d_model"]:
        """The whole layer."""
        return self.rest(x, attend(*self.qkv(x, positions)), touch)


def attention(
    layer: Layer,
    q: Float[Tensor, "batch q_pos n_heads d_head"],
    k: Float[Tensor, "batch k_pos n_kv d_head"],
    v: Float[Tensor, "batch k_pos n_kv d_head"],
    mask: Bool[Tensor, "#batch 1 #q_pos k_pos"] | None = None,
) -> Float[Tensor, "batch q_pos n_heads d_head"]:
    """What each query reads; causal where no mask says which keys it sees.

    Where each row has one query, the heads that share keys stand as positions of one head: then
    no kernel has to repeat the keys.
    """
    causal = mask is None and q.shape[1] > 1
    if causal and layer.window is not None and layer.window < k.shape[1]:
        mask, causal = causal_mask(k.shape[1], layer.window, q.device), False
    single = q.shape[1] == 1 and layer.n_kv < layer.n_heads
    queries = q[:, 0].unflatten(1, (layer.n_kv, -1)) if single else q.transpose(1, 2)
    z = F.scaled_dot_product_attention(
        queries,
        k.transpose(1, 2),
        v.transpose(1, 2),
        attn_mask=mask,
        is_causal=causal,
        scale=layer.scale,
        enable_gqa=layer.n_kv < layer.n_heads and not single,
    )
    return z.flatten(1, 2)[:, None] if single else z.transpose(1, 2)


def causal_mask(
    n_pos: int, window: int | None, device: torch.device
) -> Bool[Tensor, "1 1 pos pos"]:
    """True where a query sees a key: itself and earlier ones, no further back than the window."""
    at = torch.arange(n_pos, device=device)
    back = at[:, None] - at[None]
    seen = (back >= 0) if window is None else (back >= 0) & (back < window)
    return seen[None, None]


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x @ weight, with the bias where there is one."""
    return x @ weight if bias is None else x @ weight + bias
