"""Edits: pure functions of the residual stream. A new way to steer is a new Edit.

Those that go through an SAE are in `sae_edits.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from saelens_steer.errors import InputError
from saelens_steer.tensors import Direction, PerRow, Resid, Vectors


@dataclass(frozen=True)
class Edit:
    """x ↦ x′ on activations [batch, pos, d_model]; the caller decides at which positions."""

    name: str
    fn: Callable[[Resid], Resid]
    pointwise: bool = True
    """Each vector is changed independently of its row and position."""

    def __call__(self, resid: Resid) -> Resid:
        return self.fn(resid)


def add(direction: Direction | Float[Tensor, "batch d_model"], alpha: float | PerRow = 1.0) -> Edit:
    """x ← x + α · direction at each position, in the activation's dtype.

    A `direction` [d_model] applies to the whole batch, [batch, d_model] one to each row; `alpha`
    may then be one number for each row. Raises InputError on values that are not finite.
    """
    steps = torch.as_tensor(alpha, dtype=torch.float32)
    vector = direction.detach().float() * steps.to(direction.device)[..., None]
    if not torch.isfinite(vector).all():
        raise InputError("the steering vector has entries that are not finite numbers")

    def shift(resid: Resid) -> Resid:
        _check_width(vector, resid)
        if vector.ndim == 2 and len(vector) != len(resid):
            raise InputError(
                f"{len(vector)} directions for a batch of {len(resid)} rows: give one direction, "
                "or one for each row"
            )
        step = vector.to(device=resid.device, dtype=resid.dtype)
        return resid + (step if step.ndim == 1 else step[:, None, :])

    label = f"{alpha:g}" if isinstance(alpha, int | float) and math.isfinite(alpha) else "per row"
    return Edit(f"add({label})", shift, pointwise=vector.ndim == 1)


def project_out(direction: Direction | Vectors) -> Edit:
    """x ← x − (x · u) u with u the unit direction: x keeps no component along it.

    Several directions [n, d_model] are removed together, as the subspace they span. Raises
    InputError for a direction that is zero or not finite.
    """
    vectors = torch.atleast_2d(direction.detach().float())
    norms = vectors.norm(dim=-1)
    if not bool((norms > 0).all() and norms.isfinite().all()):
        raise InputError("a direction to project out is zero or has entries that are not finite")
    basis = _orthonormal(vectors / norms[:, None])

    def project(resid: Resid) -> Resid:
        _check_width(basis, resid)
        u, x = basis.to(resid.device), resid.float()
        return (x - (x @ u.T) @ u).to(resid.dtype)

    return Edit(f"project_out({len(vectors)})" if len(vectors) > 1 else "project_out", project)


def per_row(edits: Sequence[Edit]) -> Edit:
    """One edit for each row of a batch; rows that share an edit go through it together.

    Raises InputError, when applied, unless there are as many edits as rows.
    """
    rows: dict[int, list[int]] = {}
    for row, edit in enumerate(edits):
        rows.setdefault(id(edit), []).append(row)

    def each(resid: Resid) -> Resid:
        if len(edits) != len(resid):
            raise InputError(f"{len(edits)} edits for a batch of {len(resid)} rows: give one each")
        edited = resid.clone()
        for same in rows.values():
            edited[same] = edits[same[0]](resid[same])
        return edited

    return Edit("per row", each, pointwise=False)


def _orthonormal(units: Vectors) -> Float[Tensor, "k d_model"]:
    """Rows that span what `units` span: linearly dependent ones are dropped."""
    _, sizes, rows = torch.linalg.svd(units.double(), full_matrices=False)
    return rows[sizes > 1e-6 * sizes[0]].float()


def _check_width(vectors: Tensor, resid: Resid) -> None:
    if resid.shape[-1] != vectors.shape[-1]:
        raise InputError(
            f"the direction has {vectors.shape[-1]} entries, the hook has {resid.shape[-1]}"
        )
