"""Edits: pure functions of the residual stream. A new way to steer is a new Edit.

Edits through an SAE are in `sae_edits.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from sae_lens import SAE
from torch import Tensor

from saelens_steer.errors import InputError
from saelens_steer.steering.gates import FeatureGate, Gate, as_gate
from saelens_steer.tensors import (
    Direction,
    FeatureLike,
    Resid,
    VectorLike,
    Vectors,
    as_floats,
    as_numbers,
)

NOTHING_LEFT = 1e-3
"""Relative norm below which a direction counts as lying in the span of the others."""
SAME_SPAN = 1e-6
"""Relative singular value below which unit vectors count as dependent."""


@dataclass(frozen=True)
class Edit:
    """x ↦ x′ on activations [batch, pos, d_model]; the caller decides at which positions."""

    name: str
    fn: Callable[[Resid], Resid]
    pointwise: bool = True
    """Whether each vector is edited independently of its row and position."""
    push: Direction | None = None
    """The vector added to every activation, if the edit does nothing else."""
    key: str | None = None
    """Digest of everything that determines `fn`; None if unknown."""
    width: int | None = None
    """The width of the activations that it edits; None if unknown."""
    saes: tuple[SAE[Any], ...] = ()
    """The SAEs that it encodes with, in a gate or in edits that it applies too."""
    splices: bool = False
    """Whether it replaces activations by an SAE's reconstruction."""

    def __call__(self, resid: Resid) -> Resid:
        self.check_width(resid.shape[-1])
        return self.fn(resid)

    def check_width(self, width: int) -> None:
        """Raise InputError unless the edit applies to activations of this width."""
        if self.width not in (None, width):
            raise InputError(f"the direction has {self.width} entries, but the hook has {width}")

    def __repr__(self) -> str:
        return f"Edit: {self.name}"


def as_edits(name: str, given: Edit | Sequence[Edit]) -> list[Edit]:
    """The argument `name`, one edit or several, as a list. Raises InputError for no edit."""
    edits: Any = [given] if isinstance(given, Edit) else given
    if not isinstance(edits, list | tuple) or not all(isinstance(one, Edit) for one in edits):
        raise InputError(
            f"{name} should be an Edit or a list of edits: to push along a vector, write "
            "ss.add(vector, 2.0)"
        )
    if not edits:
        raise InputError(f"{name} is empty, which changes nothing: write ss.add(vector, 2.0)")
    return list(edits)


def of_parts(edits: Sequence[Edit]) -> dict[str, Any]:
    """The fields `saes` and `splices` of an edit that applies these."""
    saes = {id(sae): sae for edit in edits for sae in edit.saes}
    return {"saes": tuple(saes.values()), "splices": any(edit.splices for edit in edits)}


def add(
    direction: VectorLike,
    alpha: float | Sequence[float] | VectorLike = 1.0,
    *,
    keep_norm: bool = False,
    gate: Gate | tuple[SAE[Any], FeatureLike] | None = None,
    orthogonal_to: VectorLike | None = None,
) -> Edit:
    """x ← x + α · direction at each position.

    `direction`: [d_model], or several [k, d_model], whose sum is added; `alpha` may then hold one
    number for each. keep_norm: rescale x′ to ‖x‖, so that only the angle changes. gate: push only
    activations on the positive side of a Probe, or on which a feature, (sae, feature), fires (Lee
    et al. 2024, arXiv 2409.05907). orthogonal_to: push along the part of the sum orthogonal to
    these directions [n, d_model], at the same norm. `per_row` gives each row its own edit. Raises
    InputError for values that are not finite, or if the sum lies in the span of orthogonal_to.
    """
    rows, steps = _rows("direction", direction), as_numbers("alpha", alpha)
    if steps.ndim and len(steps) != len(rows):
        raise InputError(
            f"alpha has {len(steps)} numbers for {len(rows)} directions: give one number, or one "
            "for each direction; per_row([…]) gives each row of a batch its own edit"
        )
    label = ",".join(f"{x:.4g}" for x in torch.atleast_1d(steps).tolist())
    if steps.ndim:
        rows, steps = rows * steps.to(rows.device)[:, None], torch.tensor(1.0)
    vector = rows.sum(0)
    if orthogonal_to is not None:
        vector = orthogonal_part(vector, _rows("orthogonal_to", orthogonal_to))
    vector = vector * steps.to(vector.device)
    if not torch.isfinite(vector).all():
        raise InputError("the steering vector has entries that are not finite numbers")
    passing = None if gate is None else as_gate(gate)
    bare = passing is None and not keep_norm

    def shift(resid: Resid) -> Resid:
        x = resid if bare else resid.float()
        pushed = x + vector.to(device=x.device, dtype=x.dtype)
        if keep_norm:
            pushed = pushed * (x.norm(dim=-1, keepdim=True) / pushed.norm(dim=-1, keepdim=True))
        if passing is None:
            return pushed.to(resid.dtype)
        opens = passing.holds(resid)[..., None].to(x.device)
        return torch.where(opens, pushed.to(resid.dtype), resid)

    options = {
        "keep_norm": keep_norm,
        "gate": gate is not None,
        "orthogonal": orthogonal_to is not None,
    }
    name = ", ".join([label, *(option for option, on in options.items() if on)])
    saes = (passing.sae,) if isinstance(passing, FeatureGate) else ()
    return Edit(f"add({name})", shift, push=vector if bare else None, width=len(vector), saes=saes)


def add_rows(vectors: Vectors) -> Edit:
    """x ← x + its row's vector: one `add` for each row of a batch [batch, d_model]."""

    def shift(resid: Resid) -> Resid:
        if len(vectors) != len(resid):
            raise InputError(f"{len(vectors)} directions for a batch of {len(resid)} rows")
        return resid + vectors.to(resid)[:, None]

    return Edit("add(per row)", shift, pointwise=False)


def orthogonal_part(
    direction: Direction | Vectors, others: Direction | Float[Tensor, "m d_model"]
) -> Tensor:
    """The part of each direction orthogonal to all `others`, scaled to the direction's norm.

    Raises InputError if the width is wrong, or if less than a thousandth of a direction is left.
    """
    if direction.ndim == 2:
        return torch.stack([orthogonal_part(one, others) for one in direction])
    others = torch.atleast_2d(others).to(direction.device)
    if others.shape[1] != len(direction):
        raise InputError(
            f"orthogonal_to has width {others.shape[1]}, but the direction has {len(direction)}: "
            "take both from the same hook"
        )
    basis, v = _basis(others), direction.double()
    left = v - (v @ basis.T) @ basis
    if not float(left.norm()) > NOTHING_LEFT * float(v.norm()):
        raise InputError("the direction lies in the span of orthogonal_to: nothing is left of it")
    size = float(v.norm())
    size = 1.0 if abs(size - 1) < 1e-6 else size  # a unit vector up to rounding stays one
    return (left / left.norm() * size).float()


def project_out(direction: VectorLike) -> Edit:
    """x ← x − (x · u) u with u the unit direction: removes the component along it.

    Several directions [n, d_model] are removed together, as the subspace they span. Raises
    InputError for a direction that is zero or not finite.
    """
    vectors = _rows("direction", direction)
    if not bool(vectors.any(1).all() and vectors.isfinite().all()):
        raise InputError("a direction to project out is zero or has entries that are not finite")
    basis = _basis(vectors).float()

    def project(resid: Resid) -> Resid:
        u, x = basis.to(resid.device), resid.float()
        return (x - (x @ u.T) @ u).to(resid.dtype)

    name = f"project_out({len(vectors)})" if len(vectors) > 1 else "project_out"
    return Edit(name, project, width=basis.shape[1])


def per_row(edits: Sequence[Edit]) -> Edit:
    """One edit per row of a batch; rows with the same edit go through it together.

    Applying it to a batch with a different number of rows raises InputError.
    """
    edits, rows = as_edits("edits of rows", edits), dict[int, list[int]]()
    for row, edit in enumerate(edits):
        rows.setdefault(id(edit), []).append(row)

    def each(resid: Resid) -> Resid:
        if len(edits) != len(resid):
            raise InputError(f"{len(edits)} edits for a batch of {len(resid)} rows: give one each")
        edited = resid.clone()
        for same in rows.values():
            edited[same] = edits[same[0]](resid[same])
        return edited

    return Edit("per row", each, pointwise=False, **of_parts(edits))


def _rows(name: str, given: VectorLike) -> Vectors:
    """The argument `name` as [k, d_model]. Raises InputError if the shape is wrong."""
    rows = as_floats(name, given)
    if rows.ndim not in (1, 2) or not rows.numel():
        raise InputError(
            f"{name} has shape {list(rows.shape)}: it should be [d_model], or [k, d_model]"
        )
    return torch.atleast_2d(rows)


def _basis(vectors: Vectors) -> Float[Tensor, "rank d_model"]:
    """An orthonormal basis of what the vectors span, whatever their norms; float64."""
    norms = vectors.double().norm(dim=-1, keepdim=True)
    if not bool(norms.isfinite().all()):
        raise InputError("directions have entries that are not finite numbers: leave them out")
    units = (vectors.double() / norms)[norms[:, 0] > 0]
    _, sizes, rows = torch.linalg.svd(units, full_matrices=False)
    return rows[sizes > SAME_SPAN * sizes.amax()] if len(units) else units
