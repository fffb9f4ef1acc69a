"""What logit sweeps and completion sweeps share: prompts × cells (a direction at a strength)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from saelens_steer.files import digest
from saelens_steer.model import Rows
from saelens_steer.progress import say
from saelens_steer.steering import Directions, Edit, add_rows, edit_where, per_row
from saelens_steer.sweeps.edits import edited
from saelens_steer.sweeps.plan import Batch, Cell, shards
from saelens_steer.sweeps.unsteered_pass import UnsteeredPass
from saelens_steer.tensors import PerRow, Vectors

RowSteer = Callable[[Rows, Vectors, Bool[Tensor, " row"]], Vectors]
"""(rows, their activations [row, d_model], mask [row]) ↦ activations, edited under the mask."""


@dataclass(frozen=True, kw_only=True)
class SweepCells:
    """Prompts × cells; each cell is a direction at a strength."""

    unsteered_pass: UnsteeredPass
    directions: Directions
    cells: Sequence[Cell]
    """(index of the direction, α); α = 0 adds nothing."""
    steps: Sequence[float] | None = None
    """The multiple of its direction that each cell adds; None: α."""
    edits: Sequence[Edit] | None = None
    """The edit of each cell, with its key; None: each adds its direction."""

    @property
    def model(self) -> Any:
        return self.unsteered_pass.model

    @property
    def prompts(self) -> Sequence[Sequence[int]]:
        return self.unsteered_pass.prompts

    @cached_property
    def full_pass_reason(self) -> str | None:
        """Why rows need full forward passes; None if they start at the hook."""
        if self.edits is None or all(edit.pointwise for edit in self.edits):
            return self._pass_reason
        reason = "an edit reads more than one position"
        say(f"every row of the sweep needs a full forward pass: {reason}")
        return reason

    @property
    def _pass_reason(self) -> str | None:
        return self.unsteered_pass.full_pass_reason

    @cached_property
    def vectors(self) -> Vectors:
        """The directions on the model's device."""
        return self.directions.vectors.to(self.unsteered_pass.device)

    def step(self, cell: int) -> float:
        """The multiple of its direction that a cell adds."""
        return float(self.steps[cell] if self.steps is not None else self.cells[cell][1])

    def pushes(self, cells: Sequence[int]) -> Vectors:
        """The vector that each cell adds, [cell, d_model], float32."""
        steps = torch.tensor([self.step(cell) for cell in cells], device=self.unsteered_pass.device)
        return self.vectors[[self.cells[cell][0] for cell in cells]] * steps[:, None]

    def steer(
        self,
        cells: Sequence[int],
        resid: Float[Tensor, "one_or_cell node d_model"],
        chosen: Bool[Tensor, " node"],
    ) -> Float[Tensor, "cell node d_model"]:
        """The activations, edited by each cell at the chosen nodes."""
        if self.edits is not None:
            return edited([self.edits[cell] for cell in cells], resid, chosen)
        pushed = resid + self.pushes(cells).to(resid.dtype)[:, None]
        return pushed if bool(chosen.all()) else torch.where(chosen[:, None], pushed, resid)

    def row_steer(self, batch: Batch) -> RowSteer:
        """The function that edits chosen rows of a batch."""
        if self.edits is not None:
            edits = [self.edits[cell] for cell in batch.row_cells]

            def changed(rows: Rows, resid: Vectors, chosen: Bool[Tensor, " row"]) -> Vectors:
                edit = per_row([edits[row] for row in rows.tolist()])
                return edit_where([edit], resid[:, None], chosen[:, None])[:, 0]

            return changed
        pushes = self.pushes(batch.row_cells)

        def pushed(rows: Rows, resid: Vectors, chosen: Bool[Tensor, " row"]) -> Vectors:
            return torch.where(chosen[:, None], resid + pushes[rows].to(resid.dtype), resid)

        return pushed

    def row_edit(self, batch: Batch) -> Edit:
        """The edit of a batch, which applies to each row the edit of its cell."""
        if self.edits is not None:
            return per_row([self.edits[cell] for cell in batch.row_cells])
        return add_rows(self.pushes(batch.row_cells))

    def sizes(self, cells: Sequence[int]) -> PerRow:
        """The norm of the vector that each cell adds; NaN if cells have edits."""
        if self.edits is not None:
            return torch.full((len(cells),), torch.nan)
        return self.pushes(cells).norm(dim=-1)

    def identity(self, cell: int) -> str:
        """Digest of what determines a cell's rows: its edit or vector, strength and feature."""
        direction, alpha = self.cells[cell]
        feature = self.directions.features[direction]
        if (alpha if self.edits is not None else self.step(cell)) == 0:
            return digest("unsteered")
        if self.edits is not None:
            return digest(self.edits[cell].key, alpha, feature)
        vector = self.directions.vectors[direction].numpy().tobytes().hex()
        return digest(vector, self.step(cell), feature)

    def identities(self, cells: Sequence[int]) -> list[str]:
        return [self.identity(cell) for cell in cells]

    @property
    def shards(self) -> list[range]:
        """The cells of each shard (see `plan.shards`)."""
        return shards(self.cells, self.directions.groups, len(self.prompts))


def grid(n_directions: int, alphas: Sequence[float]) -> list[Cell]:
    """(direction, α) for every direction and every α except 0, which all directions share."""
    return [(d, a) for d in range(n_directions) for a in alphas if a != 0]
