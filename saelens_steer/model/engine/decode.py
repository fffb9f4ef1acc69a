"""Decode many rows at once with a KV cache; finished rows leave the batch.

A row is a prompt, or a prompt under one of several edits. Keys and values of the prompts are
left-padded, so that all rows write their next token to the same column.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from saelens_steer.model.engine.layers import (
    AttentionFn,
    Layer,
    PerHead,
    attention,
    untouched,
    visible,
)
from saelens_steer.model.engine.token_tree import Tree
from saelens_steer.model.forward import final_logits
from saelens_steer.model.generation import UNDEFINED

LEAVE = 0.75
"""Finished rows are dropped once unfinished ones are at most this share of the batch."""
Steer = Callable[[Tensor], Tensor]
"""The activation at the hook ↦ the edited activation."""
Rows = Int[Tensor, " row"]


@dataclass(frozen=True)
class EditSite:
    """Where a pass is steered: before a layer (`hook` is None), or at a hook inside it."""

    layer: int
    hook: str | None

    @property
    def hook_name(self) -> str:
        return f"blocks.{self.layer}.{self.hook or 'hook_resid_pre'}"


@dataclass
class KVCache:
    """Keys and values of every layer, [row, n_kv, pos, d_head], with columns for new tokens."""

    keys: list[Tensor]
    values: list[Tensor]
    real: Bool[Tensor, "row pos"]
    used: int
    """Columns filled so far, in every row."""

    def attend(self, number: int, layer: Layer) -> AttentionFn:
        """Attention that stores each row's new key and value, then attends to the row so far."""

        def each(q: PerHead, k: PerHead, v: PerHead) -> PerHead:
            here = self.used
            self.keys[number][:, :, here], self.values[number][:, :, here] = k[0], v[0]
            seen = self.real[:, : here + 1]
            if layer.window is not None and layer.window <= here:
                length = torch.tensor([here + 1], device=seen.device)
                seen = seen & visible(length, here + 1, layer.window)
            past = [x[number][:, :, : here + 1].transpose(1, 2) for x in (self.keys, self.values)]
            z = attention(layer, q[0][:, None], past[0], past[1], seen[:, None, None])
            return z[:, 0][None]

        return each

    def keep(self, rows: Rows) -> None:
        """Drop all other rows."""
        self.keys = [x[rows] for x in self.keys]
        self.values = [x[rows] for x in self.values]
        self.real = self.real[rows]


@torch.no_grad()
def prefill(
    model: Any,
    layers: list[Layer],
    tree: Tree,
    tokens: Int[Tensor, " node"],
    n_new: int,
    site: EditSite,
    steer: Steer,
) -> tuple[KVCache, Float[Tensor, "row d_model"]]:
    """The KV cache and last residual of each row, from the prompts of a tree (`tokens` by node).

    The cache has room for `n_new` new tokens. `steer` maps [1 or cell, node, d_model] to
    [cell, node, d_model]; rows are ordered by cell, then prompt.
    """
    stored: list[tuple[PerHead, PerHead]] = []

    def storing(attend: AttentionFn) -> AttentionFn:
        def each(q: PerHead, k: PerHead, v: PerHead) -> PerHead:
            stored.append((k, v))
            return attend(q, k, v)

        return each

    x = _embedded(model, tokens, tree.positions)[None]
    attends = [storing(tree.attend(layer)) for layer in layers]
    x = _run(layers, x, tree.positions, attends, site, steer)
    paths, real = tree.left_padded()
    return _cache_by_row(stored, len(x), paths, real, n_new), x[:, tree.last].flatten(0, 1)


@torch.no_grad()
def decode(
    model: Any,
    layers: list[Layer],
    cache: KVCache,
    last: Float[Tensor, "row d_model"],
    n_tokens: int,
    stops: list[int],
    pad: int,
    site: EditSite,
    steer: Callable[[Rows, Rows], Steer],
    choose: Callable[[Tensor, Rows, int], Rows],
) -> Int[Tensor, "row new_pos"]:
    """Up to n_tokens new tokens for each prefilled row; `pad` after a row's stop token.

    A row whose residual or logits overflow ends in UNDEFINED.

    `steer(rows, tokens)` edits the activation [1, row, d_model] of the rows still in the batch as
    they read those tokens; `choose(logits, rows, step)` picks their next tokens.
    """
    lengths, device = cache.real[:, : cache.used].sum(1), last.device
    new = torch.full((len(lengths), n_tokens), pad, device=device)
    rows, ends = torch.arange(len(lengths), device=device), torch.tensor(stops, device=device)
    unfinished, logits = torch.ones_like(rows, dtype=torch.bool), final_logits(model, last)
    for step in range(n_tokens):
        sound = last.float().norm(dim=-1).isfinite() & logits.amax(-1).isfinite()
        picked = choose(logits.nan_to_num(0.0), rows, step).where(sound, UNDEFINED)
        new[rows, step] = torch.where(unfinished, picked, pad)
        unfinished = unfinished & sound & ~torch.isin(picked, ends)
        n_unfinished = int(unfinished.sum())
        if n_unfinished == 0 or step == n_tokens - 1:
            return new[:, : step + 1]
        if n_unfinished <= LEAVE * len(rows):
            cache.keep(unfinished.nonzero()[:, 0])
            rows, picked = rows[unfinished], picked[unfinished]
            unfinished = unfinished[unfinished]
        at = lengths[rows] + step
        x = _embedded(model, picked.clamp(min=0), at)[None]
        attends = [cache.attend(number, layer) for number, layer in enumerate(layers)]
        x = _run(layers, x, at, attends, site, steer(rows, picked))
        cache.used += 1
        last, logits = x[0], final_logits(model, x[0])
    return new


def _run(
    layers: list[Layer],
    x: Float[Tensor, "*batch pos d_model"],
    at: Int[Tensor, " pos"],
    attends: Sequence[AttentionFn],
    site: EditSite,
    steer: Steer,
) -> Float[Tensor, "*steered pos d_model"]:
    """Run x through all layers, steered at the site; one attention function per layer."""

    def edit(name: str, value: Tensor) -> Tensor:
        return steer(value) if name == site.hook else value

    for number, (layer, attend) in enumerate(zip(layers, attends, strict=True)):
        here = number == site.layer
        if here and site.hook is None:
            x = steer(x)
        x = layer.run(x, at, attend, edit if here else untouched)
    return x


def _cache_by_row(
    stored: list[tuple[Tensor, Tensor]], n_cells: int, paths: Tensor, real: Tensor, n_new: int
) -> KVCache:
    """The cache of each row, from each layer's keys and values by node."""

    def laid_out(x: PerHead) -> Tensor:
        spread = x[:, paths].expand(n_cells, -1, -1, -1, -1).flatten(0, 1)  # row pos kv d_head
        n, width, n_kv, d_head = spread.shape
        padded = spread.new_zeros(n, n_kv, width + n_new, d_head)
        padded[:, :, :width] = spread.transpose(1, 2)
        return padded

    rows = real.repeat(n_cells, 1)
    ahead = torch.ones(len(rows), n_new, dtype=torch.bool, device=rows.device)
    keys, values = [laid_out(k) for k, _ in stored], [laid_out(v) for _, v in stored]
    return KVCache(keys, values, torch.cat([rows, ahead], dim=1), real.shape[1])


def _embedded(
    model: Any, tokens: Int[Tensor, " pos"], positions: Int[Tensor, " pos"]
) -> Float[Tensor, "pos d_model"]:
    """The residual stream before the first layer."""
    x = model.embed(tokens)
    if model.cfg.positional_embedding_type == "standard":
        x = x + model.pos_embed.W_pos[positions]
    return x
