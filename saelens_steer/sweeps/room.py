"""Batches that do not fit into memory are halved, and that is recorded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import torch

from saelens_steer.progress import say
from saelens_steer.sweeps.plan import Batch

T = TypeVar("T")
CPU_FULL = ("can't allocate memory", "not enough memory")
"""What torch says where main memory is full; a GPU has an exception of its own."""


@dataclass
class Room:
    """How large batches may be here, as far as is known."""

    most: int | None = None
    """Rows that certainly fit, once a batch did not."""
    halved: list[int] = field(default_factory=list)
    """The rows of each batch that did not fit."""

    def run(self, batch: Batch, compute: Callable[[Batch], T]) -> list[tuple[Batch, T]]:
        """The batch's answer, or those of its parts, in order, where it does not fit whole.

        Sums come out in another order in batches of another shape: a few last digits may differ.
        Raises what torch raises where a single row does not fit.
        """
        if self.most is not None and len(batch) > max(1, self.most):
            return self._parts(batch, compute)
        try:
            return [(batch, compute(batch))]
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not _memory_is_full(error) or len(batch) == 1:
                raise
        self.halved.append(len(batch))
        self.most = len(batch) // 2
        say(f"a batch of {len(batch)} rows did not fit into memory: halved")
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return self._parts(batch, compute)

    def _parts(self, batch: Batch, compute: Callable[[Batch], T]) -> list[tuple[Batch, T]]:
        return [answer for half in batch.halves() for answer in self.run(half, compute)]


def _memory_is_full(error: Exception) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or any(s in str(error) for s in CPU_FULL)
