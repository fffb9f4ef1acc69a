"""Batches that do not fit into memory are halved, and that is recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
    """Which batches did not fit here, so that they are halved at once after a stop, too."""

    halved: dict[str, int] = field(default_factory=dict)
    """The shape of each batch that did not fit, and its rows."""
    note: Callable[[Mapping[str, int]], object] = len
    """Called at once with `halved` when another one did not."""

    def run(self, batch: Batch, compute: Callable[[Batch], T]) -> list[tuple[Batch, T]]:
        """The batch's answer, or those of its parts, in order, where it does not fit whole.

        Every batch is tried for itself, unless one of its shape did not fit: what is halved depends
        on neither order nor stops. Sums come out in another order in batches of another shape: a
        few last digits may differ. Raises what torch raises where a single row does not fit.
        """
        if batch.shape in self.halved:
            return self._parts(batch, compute)
        try:
            return [(batch, compute(batch))]
        except (torch.OutOfMemoryError, RuntimeError, MemoryError) as error:
            if not _memory_is_full(error) or len(batch) == 1:
                raise
        self.halved[batch.shape] = len(batch)
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
