"""The layers downstream of the hook, over a tree of shared tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from saelens_steer.model import (
    AttentionFn,
    Group,
    HookEdit,
    Layer,
    PerHead,
    Tree,
    untouched,
    visible,
)

DownstreamNodes = Float[Tensor, "cell node d_model"]
Entering = Float[Tensor, "one_or_cell node_or_row d_model"]
Last = Float[Tensor, "cell row d_model"]
SteerNodes = Callable[
    [Float[Tensor, "one_or_cell node d_model"], Bool[Tensor, " node"]], DownstreamNodes
]
"""(activations at the hook, mask [node]) ↦ edited activations."""


@dataclass
class Steered:
    """Activations at the hook, before and after steering."""

    before: Float[Tensor, "one_or_cell node d_model"]
    after: DownstreamNodes


@dataclass(frozen=True, kw_only=True)
class Downstream:
    """Prompts as a tree, and the layers from the hook on."""

    layers: list[Layer]
    tree: Tree
    prefix: Float[Tensor, "node d_model"]
    """The unsteered residual entering the first layer."""
    chosen: Bool[Tensor, " node"]
    """The nodes that edits act on."""
    touched: str | None
    """The steered hook inside the first layer; None: its input."""
    last_only: bool
    """Whether only last tokens are steered."""

    @property
    def kept_bytes(self) -> int:
        """Memory in bytes, once keys and values are computed."""
        held = self.prefix.nbytes
        if self.last_only:
            vectors = sum(group.nodes.numel() for group in self.tree.groups)
            widths = sum(2 * layer.n_kv * layer.d_head for layer in self.layers)
            held += vectors * widths * self.prefix.element_size()
        return held

    def unsteered(self) -> Float[Tensor, "row d_model"]:
        """The unsteered final residual at each prompt's last token, computed as in `run`."""
        return self._rest(self.prefix[self._nodes][None], untouched)[0]

    def run(self, steer: SteerNodes) -> tuple[Last, Steered]:
        """The final residual at each prompt's last token for every cell, and the activations at
        the hook (only those of last tokens if `last_only`)."""
        before, chosen = self.prefix[self._nodes][None], self.chosen[self._nodes]
        if self.touched is None:
            after = steer(before, chosen)
            return self._rest(after, untouched), Steered(before, after)
        done: list[Steered] = []

        def touch(name: str, value: Tensor) -> Tensor:
            if name != self.touched:
                return value
            done.append(Steered(value, steer(value, chosen)))
            return done[0].after

        return self._rest(before, touch), done[0]

    @property
    def _nodes(self) -> Tensor | slice:
        """The nodes that are recomputed for each cell."""
        return self.tree.last if self.last_only else slice(None)

    def _rest(self, x: Entering, touch: HookEdit) -> Last:
        return self._last_positions(x, touch) if self.last_only else self._all_positions(x, touch)

    def _all_positions(self, x: Entering, touch: HookEdit) -> Last:
        """Run all nodes through the layers, but only last tokens through the last layer."""
        at = self.tree.positions
        # an edit inside the only layer changes all of its positions
        whole = len(self.layers) == 1 and touch is not untouched
        for layer in self.layers if whole else self.layers[:-1]:
            x, touch = layer.run(x, at, self.tree.attend(layer), touch), untouched
        if whole:
            return x[:, self.tree.last]
        layer, last = self.layers[-1], x[:, self.tree.last]
        q = layer.q(last, at[self.tree.last])
        return layer.after_attention(last, self.tree.attend_last(layer, q, *layer.kv(x, at)))

    def _last_positions(self, x: Entering, touch: HookEdit) -> Last:
        at = self.tree.positions[self.tree.last]
        for layer, keys in zip(self.layers, self._keys, strict=True):
            x, touch = layer.run(x, at, attend_shared(keys, layer), touch), untouched
        return x

    @cached_property
    def _keys(self) -> list[list[SharedKeys]]:
        """Keys and values of all tokens before the last ones, by layer and group."""
        x, kept = self.prefix[None], []
        for layer in self.layers:
            q, k, v = layer.qkv(x, self.tree.positions)
            kept.append([shared_keys(group, layer, k[0], v[0]) for group in self.tree.groups])
            x = layer.after_attention(x, self.tree.attend(layer)(q, k, v))
        return kept


@dataclass(frozen=True)
class SharedKeys:
    """One layer's keys and values of the tokens before each prompt's last, for one group."""

    group: Group
    keys: Float[Tensor, "row n_kv d_head pos"]
    values: Float[Tensor, "row n_kv pos d_head"]
    hidden: Bool[Tensor, "row 1 1 pos"]
    """True on padding, the last token and positions outside the window."""

    def read(self, layer: Layer, q: PerHead, k: PerHead, v: PerHead) -> PerHead:
        """Attend from last tokens: q [cell, row, n_heads, d_head], their k and v [cell, row, n_kv,
        d_head]."""
        n_cells, shared = len(q), layer.n_heads // layer.n_kv
        own_k, own_v = (_by_row(x.repeat_interleave(shared, dim=2), layer.n_kv) for x in (k, v))
        q = _by_row(q, layer.n_kv) * layer.scale
        before = layer.capped(q @ self.keys).masked_fill_(self.hidden, -torch.inf)
        own = layer.capped((q * own_k).sum(-1, keepdim=True))
        seen = torch.cat([before, own], dim=-1).softmax(-1)
        z = seen[..., :-1] @ self.values + seen[..., -1:] * own_v
        return z.unflatten(2, (n_cells, shared)).permute(2, 0, 1, 3, 4).flatten(2, 3)


def _by_row(x: PerHead, n_kv: int) -> Float[Tensor, "row n_kv cell_share d_head"]:
    """[cell, row, heads, d_head] regrouped by row and key-value head."""
    return x.unflatten(2, (n_kv, -1)).permute(1, 2, 0, 3, 4).flatten(2, 3)


def attend_shared(groups: Sequence[SharedKeys], layer: Layer) -> AttentionFn:
    """Attention of last tokens to themselves and to the shared tokens before them."""

    def each(q: PerHead, k: PerHead, v: PerHead) -> PerHead:
        z = torch.empty_like(q)
        for keys in groups:
            rows = keys.group.rows
            z[:, rows] = keys.read(layer, q[:, rows], k[:, rows], v[:, rows])
        return z

    return each


def shared_keys(
    group: Group,
    layer: Layer,
    k: Float[Tensor, "node n_kv d_head"],
    v: Float[Tensor, "node n_kv d_head"],
) -> SharedKeys:
    """A layer's keys and values [node, n_kv, d_head], arranged for the last tokens of a group."""
    n_pos = group.nodes.shape[1]
    seen = visible(group.lengths, n_pos, layer.window)
    seen &= torch.arange(n_pos, device=seen.device) != group.lengths[:, None] - 1
    keys, values = k[group.nodes], v[group.nodes]
    return SharedKeys(
        group,
        keys.permute(0, 2, 3, 1).contiguous(),
        values.transpose(1, 2).contiguous(),
        ~seen[:, None, None],
    )
