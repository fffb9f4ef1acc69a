"""The layers of a HookedTransformer as plain arithmetic, without its hooks.

TransformerLens lays its weights out by head and transposes them at every call, so that every
intermediate value has a hook. A sweep needs none of these: here each layer's weights are laid out
once (`plain_layers.py`), for a handful of matrix products.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

Norm = Callable[[Tensor], Tensor]
PerHead = Float[Tensor, "*batch _ _ d_head"]
HookEdit = Callable[[str, Tensor], Tensor]
"""(hook_attn_out, hook_resid_mid, hook_mlp_out or hook_resid_post; its value) ↦ its new value."""
AttentionFn = Callable[[PerHead, PerHead, PerHead], PerHead]
"""A layer's queries, keys and values, rotated ↦ what the heads read (z)."""


def untouched(name: str, value: Tensor) -> Tensor:  # noqa: ARG001
    """Leave every hook as it is."""
    return value


@dataclass(frozen=True)
class Layer:
    """One layer: its weights, ready for matrix products, and its norms."""

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
    ) -> tuple[PerHead, PerHead, PerHead]:
        """Queries [*batch, pos, n_heads, d_head], keys and values [*batch, pos, n_kv, d_head]."""
        qk, v = self._project(x, positions, slice(0, None))
        return qk[..., : self.n_heads, :], qk[..., self.n_heads :, :], v

    def q(self, x: Float[Tensor, "*batch pos d_model"], positions: Int[Tensor, " pos"]) -> PerHead:
        """Queries alone."""
        return self._project(x, positions, slice(0, self.n_heads))[0]

    def kv(
        self, x: Float[Tensor, "*batch pos d_model"], positions: Int[Tensor, " pos"]
    ) -> tuple[PerHead, PerHead]:
        """Keys and values alone."""
        return self._project(x, positions, slice(self.n_heads, None))

    def _project(self, x: Tensor, positions: Tensor, heads: slice) -> tuple[PerHead, PerHead]:
        """Queries and keys among these heads, normed and rotated, and the values among them."""
        columns = slice(heads.start * self.d_head, heads.stop and heads.stop * self.d_head)
        bias = None if self.b_QKV is None else self.b_QKV[columns]
        joint = linear(self.ln1(x), self.W_QKV[:, columns], bias)
        joint = joint.unflatten(-1, (-1, self.d_head))
        n_qk = self.n_heads + self.n_kv - heads.start
        qk = self._rotated(joint[..., :n_qk, :], positions, heads.start)
        return qk, joint[..., n_qk:, :]

    def _rotated(self, qk: PerHead, positions: Int[Tensor, " pos"], first: int) -> PerHead:
        """Queries and keys, normed and rotated; `first` is the index of the first head."""
        if self.qk_norm is not None:
            weights = self.qk_norm[first : first + qk.shape[-2]]
            qk = F.rms_norm(qk, (self.d_head,), eps=self.eps) * weights
        if self.rotary is None:
            return qk
        cos, sin = (table[positions] for table in self.rotary)
        other_half = qk.roll(self.d_head // 2, -1).mul_(sin)
        return (qk * cos).add_(other_half)

    def rest(
        self, x: Float[Tensor, "*batch pos d_model"], z: PerHead, edit: HookEdit = untouched
    ) -> Float[Tensor, "*steered pos d_model"]:
        """From what the heads read to the residual after the layer."""
        attn_out = linear(z.flatten(-2), self.W_O, self.b_O)
        if self.ln1_post is not None:
            attn_out = self.ln1_post(attn_out)
        resid_mid = edit("hook_resid_mid", x + edit("hook_attn_out", attn_out))
        mlp_out = self.mlp(self.ln2(resid_mid))
        if self.ln2_post is not None:
            mlp_out = self.ln2_post(mlp_out)
        return edit("hook_resid_post", resid_mid + edit("hook_mlp_out", mlp_out))

    def run(
        self,
        x: Float[Tensor, "*batch pos d_model"],
        positions: Int[Tensor, " pos"],
        attend: AttentionFn,
        edit: HookEdit = untouched,
    ) -> Float[Tensor, "*steered pos d_model"]:
        """The whole layer."""
        return self.rest(x, attend(*self.qkv(x, positions)), edit)


def attention(
    layer: Layer,
    q: Float[Tensor, "batch q_pos n_heads d_head"],
    k: Float[Tensor, "batch k_pos n_kv d_head"],
    v: Float[Tensor, "batch k_pos n_kv d_head"],
    mask: Bool[Tensor, "#batch 1 #q_pos k_pos"] | None = None,
) -> Float[Tensor, "batch q_pos n_heads d_head"]:
    """What each query reads; causal unless a mask says which keys it sees.

    If each row has one query, heads that share keys are passed as positions of one head, so that
    no kernel has to repeat the keys.
    """
    causal = mask is None and q.shape[1] > 1
    if causal and layer.window is not None and layer.window < k.shape[1]:
        lengths = torch.arange(1, k.shape[1] + 1, device=q.device)
        mask, causal = visible(lengths, k.shape[1], layer.window)[None, None], False
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


def visible(
    lengths: Int[Tensor, " row"], n_pos: int, window: int | None
) -> Bool[Tensor, "row pos"]:
    """True at the keys that the last of `lengths` tokens sees, of keys padded on the right."""
    back = lengths[:, None] - 1 - torch.arange(n_pos, device=lengths.device)
    return (back >= 0) if window is None else (back >= 0) & (back < window)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x @ weight, plus the bias if there is one."""
    return x @ weight if bias is None else x @ weight + bias
