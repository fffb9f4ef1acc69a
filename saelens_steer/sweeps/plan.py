"""The packing plan: shards, batches within a token budget, and batches halved for memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch

from saelens_steer.files import digest
from saelens_steer.progress import say

ROWS_PER_SHARD = 4096
"""Approximate rows per shard."""
SHARED = 8
"""Prompts shared by rows may have up to this multiple of a batch's tokens."""
Cell = tuple[int, float]
"""(index of the direction, α)"""


@dataclass(frozen=True)
class Batch:
    """Cells × prompts; rows are ordered by cell, then prompt."""

    cells: tuple[int, ...]
    prompts: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.cells) * len(self.prompts)

    @property
    def shape(self) -> str:
        """Digest of the number of cells and of the prompts."""
        return digest(len(self.cells), self.prompts)

    @property
    def row_cells(self) -> list[int]:
        return [cell for cell in self.cells for _ in self.prompts]

    @property
    def row_prompts(self) -> list[int]:
        return [*self.prompts] * len(self.cells)

    def halves(self) -> tuple[Batch, Batch]:
        """Two batches with half the cells each, or half the prompts if there is one cell."""
        cells, prompts = self.cells, self.prompts
        if len(cells) > 1:
            middle = len(cells) // 2
            return Batch(cells[:middle], prompts), Batch(cells[middle:], prompts)
        middle = len(prompts) // 2
        return Batch(cells, prompts[:middle]), Batch(cells, prompts[middle:])


def shards(
    cells: Sequence[Cell], kinds: Sequence[str], n_prompts: int, rows: int = ROWS_PER_SHARD
) -> list[range]:
    """Consecutive cells in groups of about `rows` rows, each written to the store as one file.

    A direction's cells stay together. A shard holds directions of one kind (`kinds`: each
    direction's `Directions.groups`), so the number of candidates does not change controls' shards.
    """
    groups: list[range] = []
    for number, (direction, _) in enumerate(cells):
        same = number > 0 and cells[number - 1][0] == direction
        full = bool(groups) and len(groups[-1]) * n_prompts >= rows
        parted = number > 0 and kinds[cells[number - 1][0]] != kinds[direction]
        if not groups or (not same and (full or parted)):
            groups.append(range(number, number))
        groups[-1] = range(groups[-1].start, number + 1)
    return groups


def batches(
    cells: Sequence[int],
    prompts: Sequence[Sequence[int]],
    batch_tokens: int,
    tokens_per_row: Sequence[int] | None = None,
    padded: bool = False,
) -> list[Batch]:
    """Every (cell, prompt) once, in rectangles of at most about `batch_tokens` tokens.

    `tokens_per_row` [n_prompts]: cost of a row of each prompt (default: its length). Prompts with a
    common prefix stay together or, if rows are `padded` to the longest, prompts of similar length.
    A single row over budget gets its own batch.
    """
    sizes = list(tokens_per_row or [len(prompt) for prompt in prompts])
    chunked = padded_chunks(sizes, batch_tokens) if padded else None
    found = []
    for chunk in chunked or prompt_chunks(prompts, sizes, batch_tokens):
        costs = [sizes[row] for row in chunk]
        at_once = max(1, batch_tokens // (len(costs) * max(costs) if padded else sum(costs)))
        for start in range(0, len(cells), at_once):
            found.append(Batch(tuple(cells[start : start + at_once]), chunk))
    return found


def padded_chunks(sizes: Sequence[int], batch_tokens: int) -> list[tuple[int, ...]]:
    """Chunks of prompts of similar size, at most `batch_tokens` tokens with padding."""
    chunks: list[list[int]] = []
    for row in sorted(range(len(sizes)), key=lambda row: sizes[row]):
        if not chunks or (len(chunks[-1]) + 1) * sizes[row] > batch_tokens:
            chunks.append([])
        chunks[-1].append(row)
    return [tuple(chunk) for chunk in chunks]


def prompt_chunks(
    prompts: Sequence[Sequence[int]], sizes: Sequence[int], batch_tokens: int
) -> list[tuple[int, ...]]:
    """Chunks of prompts, sorted so that common prefixes share a chunk.

    A chunk's rows cost at most `batch_tokens` (`sizes`), and its prompts have at most SHARED ×
    `batch_tokens` tokens.
    """
    chunks: list[list[int]] = []
    left = left_shared = 0
    for row in sorted(range(len(prompts)), key=lambda row: tuple(prompts[row])):
        if not chunks or sizes[row] > left or len(prompts[row]) > left_shared:
            chunks.append([])
            left, left_shared = batch_tokens, SHARED * batch_tokens
        chunks[-1].append(row)
        left -= sizes[row]
        left_shared -= len(prompts[row])
    return [tuple(chunk) for chunk in chunks]


T = TypeVar("T")
FULL = ("can't allocate memory", "not enough memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""Parts of torch's RuntimeError messages when memory is full."""


@dataclass
class BatchSplitter:
    """Halves batches that do not fit into memory, and remembers them across restarts."""

    halved: dict[str, int] = field(default_factory=dict)
    """Shape of each batch that did not fit → its number of rows."""
    note: Callable[[Mapping[str, int]], object] = len
    """Called with `halved` each time it grows."""

    def run(self, batch: Batch, compute: Callable[[Batch], T]) -> list[T]:
        """[compute(batch)], or the results of its parts in order if it does not fit.

        Every batch is tried unless its shape has failed before, so which ones are halved depends on
        neither order nor restarts. Halving changes the order of sums, and so the last digits.
        Raises torch's error if a single row does not fit.
        """
        if batch.shape in self.halved:
            return self._parts(batch, compute)
        try:
            return [compute(batch)]
        except (torch.OutOfMemoryError, RuntimeError, MemoryError) as error:
            if not _memory_is_full(error) or len(batch) == 1:
                raise
        self.halved[batch.shape] = len(batch)
        self.note(self.halved)
        say(f"a batch of {len(batch)} rows did not fit into memory and was halved")
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return self._parts(batch, compute)

    def _parts(self, batch: Batch, compute: Callable[[Batch], T]) -> list[T]:
        return [answer for half in batch.halves() for answer in self.run(half, compute)]


def _memory_is_full(error: Exception) -> bool:
    named = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return named or any(message in str(error) for message in FULL)
