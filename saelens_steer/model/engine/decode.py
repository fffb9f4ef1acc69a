"""Writing on, token by token, for many rows at once: keys and values kept, finished rows leaving.

Rows are prompts, or prompts under several edits. Each row has its own length; keys and values of
the prompts stand left-padded, so that all rows write their next token in the same column.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from saelens_steer.model.engine.layers import Attend, Heads, Layer, Touch, attention, untouched
from saelens_steer.model.engine.token_tree import Tree
from saelens_steer.model.forward import final_logits

LEAVE = 0.75
"""Finished rows leave once the others are no more than this share of the batch."""
Steer = Callable[[Tensor], Tensor]
"""What happens to the activation at the hook."""
Rows = Int[Tensor, " row"]


@dataclass(frozen=True)
class Place:
    """Where a pass is steered: before a layer, or at a hook inside it."""

    layer: int
    touched: str | None

    def run(
        self,
        layers: list[Layer],
        x: Float[Tensor, "*batch pos d_model"],
        at: Int[Tensor, " pos"],
        attends: Callable[[int], Attend],
        steer: Steer,
    ) -> Float[Tensor, "*steered pos d_model"]:
        """All layers over x, steered here; `attends(layer's number)` reads keys and values."""

        def touch(name: str, value: Tensor) -> Tensor:
            return steer(value) if name == self.touched else value

        for number, layer in enumerate(layers):
            here = number == self.layer
            if here and self.touched is None:
                x = steer(x)
            inside: Touch = touch if here else untouched
            x = layer.run(x, at, attends(number), inside)
        return x


@dataclass
class Memory:
    """Keys and values of every layer, [row, n_kv, pos, d_head], with room for what is written."""

    keys: list[Tensor]
    values: list[Tensor]
    real: Bool[Tensor, "row pos"]
    used: int
    """Columns that hold something, the same for all rows."""

    def attend(self, number: int, layer: Layer) -> Attend:
        """Keep each row's new key and value, and read everything the row has so far."""

        def each(q: Heads, k: Heads, v: Heads) -> Heads:
            here = self.used
            self.keys[number][:, :, here], self.values[number][:, :, here] = k[0], v[0]
            seen = self.real[:, : here + 1]
            if layer.window is not None and layer.window <= here:
                seen = seen & (torch.arange(here + 1, device=seen.device) > here - layer.window)
            past = [x[number][:, :, : here + 1].transpose(1, 2) for x in (self.keys, self.values)]
            z = attention(layer, q[0][:, None], past[0], past[1], seen[:, None, None])
            return z[:, 0][None]

        return each

    def keep(self, rows: Rows) -> None:
        """Forget all other rows."""
        self.keys = [x[rows] for x in self.keys]
        self.values = [x[rows] for x in self.values]
        self.real = self.real[rows]


@dataclass(frozen=True)
class Start:
    """Prompts that were read, [cell × prompt] rows: what they leave, and where they end."""

    memory: Memory
    last: Float[Tensor, "row d_model"]
    lengths: Rows


@torch.no_grad()
def read_prompts(
    model: Any, layers: list[Layer], tree: Tree, tokens: Rows, room: int, place: Place, steer: Steer
) -> Start:
    """Run the prompts of a tree (`tokens` by node), with room for so many new tokens each.

    `steer` takes [one or cell, node, d_model] to [cell, node, d_model]; rows are cell by cell.
    """
    heads: list[tuple[Heads, Heads]] = []

    def attends(number: int) -> Attend:
        def each(q: Heads, k: Heads, v: Heads) -> Heads:
            heads.append((k, v))
            return tree.attend(layers[number])(q, k, v)

        return each

    x = embedded(model, tokens, tree.positions)[None]
    x = place.run(layers, x, tree.positions, attends, steer)
    paths, real = tree.left_padded()
    memory = _remembered(heads, len(x), paths, real, room)
    lengths = real.sum(1).repeat(len(x))
    return Start(memory, x[:, tree.last].flatten(0, 1), lengths)


def _remembered(
    heads: list[tuple[Tensor, Tensor]], n_cells: int, paths: Tensor, real: Tensor, room: int
) -> Memory:
    """Keys and values by node, laid out by row."""

    def by_row(x: Heads) -> Tensor:
        spread = x[:, paths].expand(n_cells, -1, -1, -1, -1).flatten(0, 1)  # row pos kv d_head
        n, width, n_kv, d_head = spread.shape
        kept = spread.new_zeros(n, n_kv, width + room, d_head)
        kept[:, :, :width] = spread.transpose(1, 2)
        return kept

    rows = real.repeat(n_cells, 1)
    ahead = torch.ones(len(rows), room, dtype=torch.bool, device=rows.device)
    both = [(by_row(k), by_row(v)) for k, v in heads]
    keys, values = ([pair[i] for pair in both] for i in (0, 1))
    return Memory(keys, values, torch.cat([rows, ahead], dim=1), real.shape[1])


def embedded(
    model: Any, tokens: Int[Tensor, " pos"], positions: Int[Tensor, " pos"]
) -> Float[Tensor, "pos d_model"]:
    """The residual before the first layer."""
    x = model.embed(tokens)
    if model.cfg.positional_embedding_type == "standard":
        x = x + model.pos_embed.W_pos[positions]
    return x


@torch.no_grad()
def write_on(
    model: Any,
    layers: list[Layer],
    start: Start,
    n_tokens: int,
    stops: list[int],
    pad: int,
    place: Place,
    steer: Callable[[Rows, Rows], Steer],
    choose: Callable[[Tensor, Rows, int], Rows],
) -> Int[Tensor, "row new_pos"]:
    """At most n_tokens new tokens of each row; `pad` after a row's stop token.

    `steer(rows, tokens)` is what happens to the activation [1, row, d_model] of the rows still
    being written, as those tokens are read; `choose(logits, rows, step)` picks the next ones.
    """
    memory, lengths, device = start.memory, start.lengths, start.last.device
    new = torch.full((len(lengths), n_tokens), pad, device=device)
    rows, ends = torch.arange(len(lengths), device=device), torch.tensor(stops, device=device)
    going, logits = torch.ones_like(rows, dtype=torch.bool), final_logits(model, start.last)
    for step in range(n_tokens):
        picked = choose(logits, rows, step)
        new[rows, step] = torch.where(going, picked, pad)
        going = going & ~torch.isin(picked, ends)
        n_going = int(going.sum())
        if n_going == 0 or step == n_tokens - 1:
            return new[:, : step + 1]
        if n_going <= LEAVE * len(rows):
            memory.keep(going.nonzero()[:, 0])
            rows, picked, going = rows[going], picked[going], going[going]
        at = lengths[rows] + step
        x = embedded(model, picked, at)[None]
        attends = [memory.attend(number, layer) for number, layer in enumerate(layers)]
        x = place.run(layers, x, at, attends.__getitem__, steer(rows, picked))
        memory.used += 1
        logits = final_logits(model, x[0])
    return new
