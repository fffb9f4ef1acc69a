"""Prompts as a prefix tree of tokens: shared prefixes are computed once.

Chat templates and system prompts give prompts a common prefix. A token's residual depends only on
the tokens before it, so tokens with the same history share a node. Everything in a layer except
attention runs over nodes, without padding or repetition.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from saelens_steer.model.engine.layers import AttentionFn, Layer, PerHead, attention, visible

Nodes = Int[Tensor, " node"]
MAX_LENGTH_RATIO = 1.25
"""Prompts in a group differ in length by at most this factor."""


@dataclass(frozen=True)
class Group:
    """Prompts of similar length: their rows, and the nodes of their tokens, right-padded."""

    rows: Int[Tensor, " row"]
    nodes: Int[Tensor, "row pos"]
    lengths: Int[Tensor, " row"]


@dataclass(frozen=True)
class Tree:
    """Prompts with shared prefixes stored once."""

    rows: Int[Tensor, " node"]
    """A prompt that contains each node."""
    positions: Nodes
    """How many tokens precede each node."""
    last: Int[Tensor, " row"]
    """The node of each prompt's last token."""
    groups: tuple[Group, ...]
    places: Nodes
    """The index of each node in the groups' padded rows, concatenated."""

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def n_rows(self) -> int:
        return len(self.last)

    def membership(self, chosen: Bool[Tensor, " node"]) -> Float[Tensor, "node row"]:
        """1 if the node is chosen and belongs to the prompt, else 0."""
        belongs = torch.zeros(len(self), self.n_rows, device=chosen.device)
        for group in self.groups:
            row, at = _real(group)
            belongs[group.nodes[row, at], group.rows[row]] = 1.0
        return belongs * chosen[:, None]

    def left_padded(self) -> tuple[Int[Tensor, "row pos"], Bool[Tensor, "row pos"]]:
        """The nodes of each prompt's tokens, left-padded, and a mask that is False at padding."""
        width = max(group.nodes.shape[1] for group in self.groups)
        shape, device = (self.n_rows, width), self.positions.device
        paths = torch.zeros(shape, dtype=torch.long, device=device)
        real = torch.zeros(shape, dtype=torch.bool, device=device)
        for group in self.groups:
            row, at = _real(group)
            column = width - group.lengths[row] + at
            paths[group.rows[row], column] = group.nodes[row, at]
            real[group.rows[row], column] = True
        return paths, real

    def attend(self, layer: Layer) -> AttentionFn:
        """Causal attention within each prompt; heads are [batch, node, heads, d_head]."""

        def each(q: PerHead, k: PerHead, v: PerHead) -> PerHead:
            parts = [in_group(group, q, k, v) for group in self.groups]
            z = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
            return z.index_select(1, self.places)

        def in_group(group: Group, *qkv: PerHead) -> PerHead:
            z = attention(layer, *(_rows(x, group.nodes) for x in qkv))  # nothing sees the padding
            return z.unflatten(0, (len(qkv[0]), -1)).flatten(1, 2)

        return each

    def attend_last(self, layer: Layer, q: PerHead, k: PerHead, v: PerHead) -> PerHead:
        """z at each prompt's last token; q is [batch, row, …], k and v are by node."""
        batch, z = len(q), torch.empty_like(q)
        for group in self.groups:
            n, n_pos = group.nodes.shape
            keys, values = (_rows(x, group.nodes) for x in (k, v))
            queries = q.index_select(1, group.rows).flatten(0, 1)[:, None]
            mask = visible(group.lengths, n_pos, layer.window).repeat(batch, 1)[:, None, None]
            z_last = attention(layer, queries, keys, values, mask)
            z[:, group.rows] = z_last[:, 0].unflatten(0, (batch, n))
        return z


def tree_of(
    rows: Sequence[Sequence[int]],
    marks: Sequence[Sequence[bool]],
    device: torch.device | str = "cpu",
) -> Tree:
    """The prefix tree of prompts; tokens share a node if tokens and marks agree up to there.

    Nodes are in the order in which prompts first reach them.
    """
    known: dict[tuple[int, int, bool], int] = {}
    owners, positions, paths = [], [], []
    for number, (tokens, marked) in enumerate(zip(rows, marks, strict=True)):
        node, path = -1, []
        for position, step in enumerate(zip(tokens, marked, strict=True)):
            before = len(known)
            node = known.setdefault((node, *step), before)
            if node == before:
                owners.append(number)
                positions.append(position)
            path.append(node)
        paths.append(path)
    return _assemble(owners, positions, paths, device)


def _assemble(
    owners: list[int], positions: list[int], paths: list[list[int]], device: torch.device | str
) -> Tree:
    groups, places, start = [], [0] * len(owners), 0
    for members in _similar_lengths([len(path) for path in paths]):
        width = max(len(paths[row]) for row in members)
        for offset, row in enumerate(members):
            for position, node in enumerate(paths[row]):
                places[node] = start + offset * width + position
        start += len(members) * width
        padded = [paths[row] + [paths[row][-1]] * (width - len(paths[row])) for row in members]
        lengths = [len(paths[row]) for row in members]
        groups.append(Group(*(torch.tensor(x, device=device) for x in (members, padded, lengths))))
    last = [path[-1] for path in paths]
    rows, at, ends, indices = (
        torch.tensor(x, device=device) for x in (owners, positions, last, places)
    )
    return Tree(rows, at, ends, tuple(groups), indices)


def _similar_lengths(lengths: Sequence[int]) -> list[list[int]]:
    """Rows in groups of similar length, shortest first."""
    groups: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: lengths[row]):
        if not groups or lengths[row] > MAX_LENGTH_RATIO * lengths[groups[-1][0]]:
            groups.append([])
        groups[-1].append(row)
    return groups


def _real(group: Group) -> tuple[Tensor, Tensor]:
    """Row and position of each entry that is not padding."""
    pos = torch.arange(group.nodes.shape[1], device=group.nodes.device)
    row, at = (pos[None] < group.lengths[:, None]).nonzero(as_tuple=True)
    return row, at


def _rows(x: PerHead, nodes: Int[Tensor, "row pos"]) -> Float[Tensor, "batch_row pos heads d_head"]:
    """Gather nodes [batch, node, …] into prompts, one batch entry after another."""
    return x.index_select(1, nodes.flatten()).unflatten(1, nodes.shape).flatten(0, 1)
