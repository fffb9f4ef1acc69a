"""The packing plan: which rows go through the model together.

A pure function of prompt lengths, cells and the token budget, never of free memory or of what is
already done: floating-point sums depend on the shape of a batch, so a sweep that was stopped and
goes on gives the same bytes only if every batch is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ROWS_PER_SHARD = 4096
"""A shard is committed after about so many rows."""


@dataclass(frozen=True)
class Batch:
    """Rows of one forward pass: row i is prompt prompts[i] under cell cells[i]."""

    prompts: np.ndarray
    cells: np.ndarray

    def __len__(self) -> int:
        return len(self.prompts)


def pack(lengths: Sequence[int], n_cells: int, batch_tokens: int) -> list[Batch]:
    """Every (prompt, cell) once, short prompts first, at most `batch_tokens` padded tokens a batch.

    `lengths` [n_prompts] in tokens. A single row longer than the budget is a batch of its own.
    """
    order = np.argsort(np.asarray(lengths), kind="stable")
    prompts, cells = np.repeat(order, n_cells), np.tile(np.arange(n_cells), len(order))
    sizes = np.asarray(lengths)[prompts]
    batches, start = [], 0
    while start < len(prompts):
        most = start + max(1, batch_tokens // int(sizes[start]))
        window = sizes[start:most]  # ascending: the last row of a batch is its longest
        fits = np.arange(1, len(window) + 1) * window <= batch_tokens
        stop = start + max(1, int(fits.sum()))
        batches.append(Batch(prompts[start:stop], cells[start:stop]))
        start = stop
    return batches


def shards(batches: Sequence[Batch], rows_per_shard: int = ROWS_PER_SHARD) -> list[list[Batch]]:
    """Consecutive batches in groups of about `rows_per_shard` rows: the unit of commitment."""
    groups: list[list[Batch]] = []
    room = 0
    for batch in batches:
        if room <= 0:
            groups.append([])
            room = rows_per_shard
        groups[-1].append(batch)
        room -= len(batch)
    return groups
