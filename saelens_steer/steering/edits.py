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

from saelens_steer.config import plain
from saelens_steer.errors import InputError
from saelens_steer.steering.gates import Gate, as_gate
from saelens_steer.tensors import Direction, FeatureLike, Resid, VectorLike, Vectors, as_floats

NOTHING_LEFT = 1e-3
"""Relative norm below which a direction counts as lying in the span of the others."""


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

    def __call__(self, resid: Resid) -> Resid:
        return self.fn(resid)

    def __repr__(self) -> str:
        return f"Edit: {self.name}"


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
    activations that a Probe, or a feature given as (sae, feature), lets through (Lee et al. 2024,
    arXiv 2409.05907). orthogonal_to: push along the part of the sum orthogonal to these directions
    [n, d_model], at the same norm. `per_row` gives each row of a batch another edit. Raises
    InputError for values that are not finite, or if nothing of the direction is left.
    """
    rows = as_floats("direction", direction)
    steps = torch.as_tensor(alpha if isinstance(alpha, Tensor) else plain(alpha)).float()
    if rows.ndim not in (1, 2) or not rows.numel():
        raise InputError(
            f"direction has shape {list(rows.shape)}: it should be [d_model], or [k, d_model]"
        )
    if steps.ndim and steps.shape != torch.atleast_2d(rows).shape[:1]:
        raise InputError(
            f"alpha has shape {list(steps.shape)}, and direction {list(rows.shape)}: give one "
            "number, or one for each direction; per_row([…]) gives each row of a batch its own edit"
        )
    rows, label = torch.atleast_2d(rows), ",".join(f"{x:.4g}" for x in steps.flatten().tolist())
    if steps.ndim:
        rows, steps = rows * steps.to(rows.device)[:, None], torch.tensor(1.0)
    vector = rows.sum(0)
    if orthogonal_to is not None:
        vector = orthogonal_part(vector, as_floats("orthogonal_to", orthogonal_to))
    vector = vector * steps.to(vector.device)
    if not torch.isfinite(vector).all():
        raise InputError("the steering vector has entries that are not finite numbers")
    opens = None if gate is None else as_gate(gate).holds
    bare = opens is None and not keep_norm

    def shift(resid: Resid) -> Resid:
        _check_width(vector, resid)
        x = resid if bare else resid.float()
        pushed = x + vector.to(device=x.device, dtype=x.dtype)
        if keep_norm:
            pushed = pushed * (x.norm(dim=-1, keepdim=True) / pushed.norm(dim=-1, keepdim=True))
        if opens is None:
            return pushed.to(resid.dtype)
        return torch.where(opens(resid)[..., None].to(x.device), pushed.to(resid.dtype), resid)

    options = {
        "keep_norm": keep_norm,
        "gate": gate is not None,
        "orthogonal": orthogonal_to is not None,
    }
    name = ", ".join([label, *(option for option, on in options.items() if on)])
    return Edit(f"add({name})", shift, push=vector if bare else None)


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

    Raises InputError if less than a thousandth of a direction is left.
    """
    if direction.ndim == 2:
        return torch.stack([orthogonal_part(one, others) for one in direction])
    basis = torch.linalg.qr(torch.atleast_2d(others).to(direction.device).double().T).Q
    v = direction.double()
    left = v - basis @ (basis.T @ v)
    if not float(left.norm()) > NOTHING_LEFT * float(v.norm()):
        raise InputError("nothing of the direction is left orthogonal to the others")
    size = float(v.norm())
    size = 1.0 if abs(size - 1) < 1e-6 else size  # a unit vector up to rounding stays one
    return (left / left.norm() * size).float()


def project_out(direction: VectorLike) -> Edit:
    """x ← x − (x · u) u with u the unit direction: removes the component along it.

    Several directions [n, d_model] are removed together, as the subspace they span. Raises
    InputError for a direction that is zero or not finite.
    """
    vectors = torch.atleast_2d(as_floats("direction", direction))
    norms = vectors.norm(dim=-1)
    if not bool((norms > 0).all() and norms.isfinite().all()):
        raise InputError("a direction to project out is zero or has entries that are not finite")
    _, sizes, rows = torch.linalg.svd((vectors / norms[:, None]).double(), full_matrices=False)
    basis = rows[sizes > 1e-6 * sizes[0]].float()  # orthonormal

    def project(resid: Resid) -> Resid:
        _check_width(basis, resid)
        u, x = basis.to(resid.device), resid.float()
        return (x - (x @ u.T) @ u).to(resid.dtype)

    return Edit(f"project_out({len(vectors)})" if len(vectors) > 1 else "project_out", project)


def per_row(edits: Sequence[Edit]) -> Edit:
    """One edit per row of a batch; rows with the same edit go through it together.

    Applying it to a batch with another number of rows raises InputError.
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


def _check_width(vectors: Tensor, resid: Resid) -> None:
    if resid.shape[-1] != vectors.shape[-1]:
        raise InputError(
            f"the direction has {vectors.shape[-1]} entries, but the hook has {resid.shape[-1]}"
        )
