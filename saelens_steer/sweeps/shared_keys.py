"""Attention of steered last tokens to the unsteered ones before them, which all cells share."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from saelens_steer.model import Attend, Group, Heads, Layer, Tree, visible


@dataclass(frozen=True)
class SharedKeys:
    """One layer's keys and values of the tokens before each prompt's last, group by group."""

    groups: tuple[GroupKeys, ...]

    def attend(self, layer: Layer) -> Attend:
        """What last tokens [cell, row, heads, d_head] read: all before them, and themselves."""

        def each(q: Heads, k: Heads, v: Heads) -> Heads:
            z = torch.empty_like(q)
            for group in self.groups:
                rows = group.group.rows
                z[:, rows] = group.read(layer, q[:, rows], k[:, rows], v[:, rows])
            return z

        return each


@dataclass(frozen=True)
class GroupKeys:
    """The same for prompts of like length."""

    group: Group
    keys: Float[Tensor, "row n_kv d_head pos"]
    values: Float[Tensor, "row n_kv pos d_head"]
    hidden: Bool[Tensor, "row 1 1 pos"]
    """Padding, the last token itself, and what is beyond the window."""

    def read(self, layer: Layer, q: Heads, k: Heads, v: Heads) -> Heads:
        """q [cell, row, n_heads, d_head]; k and v [cell, row, n_kv, d_head] are the tokens' own."""
        n_cells, shared = len(q), layer.n_heads // layer.n_kv
        own_k, own_v = (_by_row(x.repeat_interleave(shared, dim=2), layer.n_kv) for x in (k, v))
        q = _by_row(q, layer.n_kv) * layer.scale
        before = (q @ self.keys).masked_fill_(self.hidden, -torch.inf)
        seen = torch.cat([before, (q * own_k).sum(-1, keepdim=True)], dim=-1).softmax(-1)
        z = seen[..., :-1] @ self.values + seen[..., -1:] * own_v
        return z.unflatten(2, (n_cells, shared)).permute(2, 0, 1, 3, 4).flatten(2, 3)


def _by_row(x: Heads, n_kv: int) -> Float[Tensor, "row n_kv cell_share d_head"]:
    """[cell, row, heads, d_head] with the cells beside each other under each row's heads."""
    return x.unflatten(2, (n_kv, -1)).permute(1, 2, 0, 3, 4).flatten(2, 3)


def shared_keys(
    tree: Tree,
    layer: Layer,
    k: Float[Tensor, "node n_kv d_head"],
    v: Float[Tensor, "node n_kv d_head"],
) -> SharedKeys:
    """The keys and values of a layer, by node, as last tokens will read them."""
    return SharedKeys(tuple(_group_keys(layer, group, k, v) for group in tree.groups))


def _group_keys(layer: Layer, group: Group, k: Tensor, v: Tensor) -> GroupKeys:
    n_pos = group.nodes.shape[1]
    seen = visible(group.lengths, n_pos, layer.window)
    seen &= torch.arange(n_pos, device=seen.device) != group.lengths[:, None] - 1
    keys, values = k[group.nodes], v[group.nodes]
    return GroupKeys(
        group,
        keys.permute(0, 2, 3, 1).contiguous(),
        values.transpose(1, 2).contiguous(),
        ~seen[:, None, None],
    )
