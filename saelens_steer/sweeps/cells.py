"""What a logit sweep and a completion sweep have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from saelens_steer.steering import Edit, add
from saelens_steer.sweeps.directions import Directions
from saelens_steer.sweeps.plan import Batch
from saelens_steer.tensors import PerRow, Vectors


@dataclass(frozen=True, kw_only=True)
class Cells:
    """Prompts under cells: each cell is a direction at a strength."""

    model: Any
    hook_name: str
    prompts: Sequence[Sequence[int]]
    """Token ids of each prompt, unpadded."""
    directions: Directions
    cells: Sequence[tuple[int, float]]
    """(index of the direction, α); α = 0 adds nothing."""
    steps: Sequence[float] | None = None
    """How much of its direction each cell adds, where that is not α itself (unit kl)."""

    @cached_property
    def vectors(self) -> Vectors:
        """The directions on the model's device."""
        return self.directions.vectors.to(self.model.cfg.device)

    def row_edit(self, batch: Batch) -> Edit:
        """The edit that gives each row of a batch the push of its own cell."""
        return add(self.vectors[self._which(batch)], self._row_steps(batch))

    def row_push(self, batch: Batch) -> PerRow:
        """The norm of what each row gets: [batch]."""
        norms = self.vectors[self._which(batch)].norm(dim=-1)
        return norms * self._row_steps(batch).abs().to(norms.device)

    def _which(self, batch: Batch) -> list[int]:
        return [self.cells[cell][0] for cell in batch.cells]

    def _row_steps(self, batch: Batch) -> PerRow:
        steps = self.steps or [alpha for _, alpha in self.cells]
        return torch.tensor([float(steps[cell]) for cell in batch.cells])


def grid(n_directions: int, alphas: Sequence[float]) -> list[tuple[int, float]]:
    """(direction, α) for every direction and every α but 0, which all directions share."""
    return [(d, a) for d in range(n_directions) for a in alphas if a != 0]
