"""Edits: pure functions of the residual stream. A new way to steer is a new Edit."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from saelens_steer.errors import InputError
from saelens_steer.tensors import Direction, PerRow, Resid


@dataclass(frozen=True)
class Edit:
    """x ↦ x′ on residuals [batch, pos, d_model]; where it applies is not the edit's business."""

    name: str
    fn: Callable[[Resid], Resid]

    def __call__(self, resid: Resid) -> Resid:
        return self.fn(resid)


def add(direction: Direction | Float[Tensor, "batch d_model"], alpha: float | PerRow = 1.0) -> Edit:
    """x ← x + α · direction at each position, in the residual's dtype.

    A `direction` [d_model] serves the whole batch; [batch, d_model] gives each row its own, and
    `alpha` may then be one number for each row. Raises InputError on values that are not finite.
    """
    steps = torch.as_tensor(alpha, dtype=torch.float32)
    vector = direction.detach().float() * steps.to(direction.device)[..., None]
    if not torch.isfinite(vector).all():
        raise InputError("the steering vector has entries that are not finite numbers")

    def shift(resid: Resid) -> Resid:
        if resid.shape[-1] != vector.shape[-1]:
            raise InputError(
                f"the direction has {vector.shape[-1]} entries, the hook has {resid.shape[-1]}"
            )
        if vector.ndim == 2 and len(vector) != len(resid):
            raise InputError(
                f"{len(vector)} directions for a batch of {len(resid)} rows: give one direction, "
                "or one for each row"
            )
        step = vector.to(device=resid.device, dtype=resid.dtype)
        return resid + (step if step.ndim == 1 else step[:, None, :])

    label = f"{alpha:g}" if isinstance(alpha, int | float) and math.isfinite(alpha) else "per row"
    return Edit(f"add({label})", shift)
