"""A HookedTransformer's layers without hooks, as a handful of matrix products each.

To give every intermediate value a hook, TransformerLens stores weights by head and rearranges them
at every call. A sweep needs none of those hooks, so here weights are rearranged only once
(`plain_layers.py`).
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
EDITABLE = (
    *("attn.hook_z", "hook_attn_out"),
    *("hook_resid_mid", "hook_mlp_out", "hook_resid_post"),
)
"""The hooks inside a layer at which `Layer` calls a `HookEdit`."""
HookEdit = Callable[[str, Tensor], Tensor]
"""(one of EDITABLE, its value) ↦ the new value."""
AttentionFn = Callable[[PerHead, PerHead, PerHead], PerHead]
"""A layer's queries, keys (both rotated) and values ↦ the heads' outputs z."""


def untouched(name: str, value: Tensor) -> Tensor:  # noqa: ARG001
    """The `HookEdit` that changes nothing."""
    return value


@dataclass(frozen=True)
class Layer:
    """One layer: its norms, and its weights laid out for matrix products."""

    ln1: Norm
    ln2: Norm
    ln1_post: Norm | None
    ln2_post: Norm | None
    W_QKV: Float[Tensor, "d_model qkv"]
    b_QKV: Float[Tensor, " qkv"] | None
    qk_norm: Float[Tensor, "heads d_head"] | None
    """Weights of the norms on queries, then on keys."""
    W_O: Float[Tensor, "z d_model"]
    b_O: Float[Tensor, " d_model"] | None
    mlp: Callable[[Tensor], Tensor]
    rotary: tuple[Float[Tensor, "n_ctx 1 d_head"], Float[Tensor, "n_ctx 1 d_head"]] | None
    """Cosines, and sines that are negative in the first half."""
    n_heads: int
    n_kv: int
    d_head: int
    eps: float
    scale: float
    """Factor on attention scores."""
    soft_cap: float | None
    """Scores s become soft_cap · tanh(s / soft_cap)."""
    window: int | None
    """Length of the sliding window; None for full attention."""
    parallel: bool
    """Whether the MLP reads the layer's input, as attention does, rather than hook_resid_mid."""

    def qkv(
        self, x: Float[Tensor, "*batch pos d_model"], positions: Int[Tensor, " pos"]
    ) -> tuple[PerHead, PerHead, PerHead]:
        """Queries [*batch, pos, n_heads, d_head], keys and values [*batch, pos, n_kv, d_head]."""
        qk, v = self._project(x, positions, slice(0, None))
        return qk[..., : self.n_heads, :], qk[..., self.n_heads :, :], v

    def q(self, x: Float[Tensor, "*batch pos d_model"], positions: Int[Tensor, " pos"]) -> PerHead:
        """Queries only."""
        return self._project(x, positions, slice(0, self.n_heads))[0]

    def kv(
        self, x: Float[Tensor, "*batch pos d_model"], positions: Int[Tensor, " pos"]
    ) -> tuple[PerHead, PerHead]:
        """Keys and values only."""
        return self._project(x, positions, slice(self.n_heads, None))

    def _project(self, x: Tensor, positions: Tensor, heads: slice) -> tuple[PerHead, PerHead]:
        """The queries and keys among these heads, normed and rotated; the values among them."""
        columns = slice(heads.start * self.d_head, heads.stop and heads.stop * self.d_head)
        bias = None if self.b_QKV is None else self.b_QKV[columns]
        joint = linear(self.ln1(x), self.W_QKV[:, columns], bias)
        joint = joint.unflatten(-1, (-1, self.d_head))
        n_qk = self.n_heads + self.n_kv - heads.start
        qk = self._rotated(joint[..., :n_qk, :], positions, heads.start)
        return qk, joint[..., n_qk:, :]

    def _rotated(self, qk: PerHead, positions: Int[Tensor, " pos"], first: int) -> PerHead:
        """Norm and rotate queries and keys; `first` is the index of the first head."""
        if self.qk_norm is not None:
            weights = self.qk_norm[first : first + qk.shape[-2]]
            qk = F.rms_norm(qk, (self.d_head,), eps=self.eps) * weights
        if self.rotary is None:
            return qk
        cos, sin = (table[positions] for table in self.rotary)
        other_half = qk.roll(self.d_head // 2, -1).mul_(sin)
        return (qk * cos).add_(other_half)

    def after_attention(
        self, x: Float[Tensor, "*batch pos d_model"], z: PerHead, edit: HookEdit = untouched
    ) -> Float[Tensor, "*steered pos d_model"]:
        """The residual stream after the layer, given the heads' outputs z."""
        attn_out = linear(edit("attn.hook_z", z.flatten(-2)), self.W_O, self.b_O)
        if self.ln1_post is not None:
            attn_out = self.ln1_post(attn_out)
        resid_mid = x + edit("hook_attn_out", attn_out)
        if not self.parallel:
            x = resid_mid = edit("hook_resid_mid", resid_mid)
        mlp_out = self.mlp(self.ln2(x))
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
        return self.after_attention(x, attend(*self.qkv(x, positions)), edit)

    def capped(self, scores: Tensor) -> Tensor:
        """Attention scores under the soft cap, in place."""
        if self.soft_cap is None:
            return scores
        return scores.div_(self.soft_cap).tanh_().mul_(self.soft_cap)


def attention(
    layer: Layer,
    q: Float[Tensor, "batch q_pos n_heads d_head"],
    k: Float[Tensor, "batch k_pos n_kv d_head"],
    v: Float[Tensor, "batch k_pos n_kv d_head"],
    mask: Bool[Tensor, "#batch 1 #q_pos k_pos"] | None = None,
) -> Float[Tensor, "batch q_pos n_heads d_head"]:
    """The heads' outputs z; causal, unless a mask says which keys each query sees.

    If each row has one query, heads that share keys are passed as positions of one head, so that no
    kernel repeats the keys.
    """
    n_pos, causal = k.shape[1], mask is None and q.shape[1] > 1
    windowed = layer.window is not None and layer.window < n_pos
    if causal and (windowed or layer.soft_cap is not None):
        lengths = torch.arange(1, n_pos + 1, device=q.device)
        mask, causal = visible(lengths, n_pos, layer.window)[None, None], False
    if layer.soft_cap is not None:
        return _capped_attention(layer, q, k, v, mask)
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


def _capped_attention(
    layer: Layer, q: PerHead, k: PerHead, v: PerHead, mask: Tensor | None
) -> PerHead:
    """`attention` with soft caps, which torch's kernels lack."""
    keys, values = (x.transpose(1, 2) for x in (k, v))  # [batch, n_kv, k_pos, d_head]
    queries = q.unflatten(2, (layer.n_kv, -1)).permute(0, 2, 3, 1, 4)  # batch kv share q_pos d_head
    scores = layer.capped((queries.flatten(2, 3) * layer.scale) @ keys.transpose(-1, -2))
    scores = scores.unflatten(2, queries.shape[2:4])
    if mask is not None:
        scores.masked_fill_(~mask[:, :, None], -torch.inf)
    z = scores.softmax(-1).flatten(2, 3) @ values
    return z.unflatten(2, queries.shape[2:4]).permute(0, 3, 1, 2, 4).flatten(2, 3)


def visible(
    lengths: Int[Tensor, " row"], n_pos: int, window: int | None
) -> Bool[Tensor, "row pos"]:
    """True at the right-padded keys that the last of each row's `lengths` tokens sees."""
    back = lengths[:, None] - 1 - torch.arange(n_pos, device=lengths.device)
    return (back >= 0) if window is None else (back >= 0) & (back < window)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x @ weight, plus the bias if there is one."""
    return x @ weight if bias is None else x @ weight + bias
