"""Batches that do not fit into memory are halved, and that is recorded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch

from saelens_steer.progress import say
from saelens_steer.sweeps.plan import Batch

T = TypeVar("T")
FULL = ("can't allocate memory", "not enough memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""What torch says where memory is full and it has no exception for that."""


@dataclass
class Room:
    """How large batches may be here, as far as is known."""

    halved: list[int] = field(default_factory=list)
    """The rows of each batch that did not fit, here or before a stop."""
    note: Callable[[Sequence[int]], object] = len
    """Called at once with `halved` when another one did not."""

    @property
    def most(self) -> int | None:
        """Rows that certainly fit, once a batch did not."""
        return max(1, min(self.halved) // 2) if self.halved else None

    def run(self, batch: Batch, compute: Callable[[Batch], T]) -> list[tuple[Batch, T]]:
        """The batch's answer, or those of its parts, in order, where it does not fit whole.

        Sums come out in another order in batches of another shape: a few last digits may differ.
        Raises what torch raises where a single row does not fit.
        """
        if self.most is not None and len(batch) > self.most:
            return self._parts(batch, compute)
        try:
            return [(batch, compute(batch))]
        except (torch.OutOfMemoryError, RuntimeError, MemoryError) as error:
            if not _memory_is_full(error) or len(batch) == 1:
                raise
        self.halved.append(len(batch))
        self.note(self.halved)
        say(f"a batch of {len(batch)} rows did not fit into memory: halved")
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return self._parts(batch, compute)

    def _parts(self, batch: Batch, compute: Callable[[Batch], T]) -> list[tuple[Batch, T]]:
        return [answer for half in batch.halves() for answer in self.run(half, compute)]


def _memory_is_full(error: Exception) -> bool:
    of_its_own = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return of_its_own or any(said in str(error) for said in FULL)
