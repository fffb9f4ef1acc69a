"""The edits of a sweep's cells: a candidate's own, and pushes of controls that match their size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from saelens_steer.config import EditSpec, SweepSpec
from saelens_steer.files import digest
from saelens_steer.steering import (
    CANDIDATE,
    Directions,
    Edit,
    EditContext,
    Target,
    build_edit,
    edit_where,
)
from saelens_steer.sweeps.plan import Cell
from saelens_steer.tensors import Direction, Resid

UNEDITED = Edit("none", lambda x: x, key="unsteered")


def cell_edits(
    spec: SweepSpec, context: EditContext, directions: Directions, cells: Sequence[Cell]
) -> list[Edit] | None:
    """The edit of each cell; None if all add their direction.

    A control moves each activation as far as its candidate's edit does there, along the control and
    towards the sign of α. Raises InputError if the edit does not apply to a direction.
    """
    if spec.edit.is_push:
        return None
    of = {n: d for d, n in enumerate(directions.names) if directions.families[d] == CANDIDATE}
    built: dict[Cell, Edit] = {}

    def tested(d: int, alpha: float) -> Edit:
        if (d, alpha) not in built:
            target = target_of(directions, d)
            amount = amount_of(spec.edit, target, alpha, spec.alpha_unit, context)
            built[d, alpha] = build_edit(spec.edit, target, amount, context)
        return built[d, alpha]

    def each(d: int, alpha: float) -> Edit:
        if alpha == 0:
            return UNEDITED
        if directions.families[d] == CANDIDATE:
            return tested(d, alpha)
        vector = directions.vectors[d]
        unit = vector / vector.norm() * (1 if alpha > 0 else -1)
        return MatchedPush.of(unit, tested(of[str(directions.matched_to[d])], alpha))

    return [each(d, alpha) for d, alpha in cells]


def target_of(directions: Directions, d: int) -> Target:
    """One of the directions as what an edit acts along."""
    feature = directions.features[d]
    features = () if feature is None else (feature,)
    return Target(directions.names[d], directions.vectors[d : d + 1], features)


def amount_of(
    edit: EditSpec, target: Target, alpha: float, unit: str, context: EditContext
) -> float:
    """What α means to an edit: the multiple of its vector, a factor, or a value of z.

    A value z_f is such that z_f · W_dec[f] is as long as the push α would be: α itself if the unit
    is raw.
    """
    if edit.options.strength == "factor":
        return 1 + alpha
    if edit.options.strength != "value" or unit == "raw" or not target.features:
        return alpha
    row = context.sae.W_dec[target.features[0]].detach().float().cpu()
    size = float(row.norm())
    return alpha / size if unit == "unit" else alpha * float(target.vectors[0].norm()) / size


@dataclass(frozen=True, kw_only=True)
class MatchedPush(Edit):
    """A push along `unit`, at each activation as long as the step of another edit there."""

    unit: Direction
    matched: Edit

    @classmethod
    def of(cls, unit: Direction, matched: Edit) -> MatchedPush:
        """The push along this unit vector that matches an edit's ‖Δx‖."""

        def act(x: Resid) -> Resid:
            return pushed_by(x, step_size(matched, x), unit)

        key = digest("matched push", matched.key, unit.numpy().tobytes().hex())
        pointwise = matched.pointwise
        return cls("matched push", act, pointwise, key=key, unit=unit, matched=matched)


def step_size(edit: Edit, x: Resid) -> Float[Tensor, "batch pos"]:
    """‖Δx‖ of an edit at each activation, float32."""
    return (edit(x).float() - x.float()).norm(dim=-1)


def edited(
    edits: Sequence[Edit],
    resid: Float[Tensor, "one_or_cell node d_model"],
    chosen: Bool[Tensor, " node"],
) -> Float[Tensor, "cell node d_model"]:
    """The activation under each edit at the chosen nodes.

    Pushes are one operation. If all cells start from one activation, so are the controls that match
    one edit, whose size is computed once.
    """
    after = resid.new_empty(len(edits), *resid.shape[1:])
    pushes, matching = list[int](), dict[int, list[int]]()
    for i, edit in enumerate(edits):
        if edit.push is not None and edit.push.ndim == 1:
            pushes.append(i)
        elif isinstance(edit, MatchedPush) and len(resid) == 1:
            matching.setdefault(id(edit.matched), []).append(i)
        else:
            own = resid if len(resid) == 1 else resid[i : i + 1]
            after[i] = edit_where([edit], own, chosen[None])[0]
    if pushes:
        own = resid if len(resid) == 1 else resid[pushes]
        steps = torch.stack([cast(Tensor, edits[i].push) for i in pushes]).to(resid)
        after[pushes] = torch.where(chosen[:, None], own + steps[:, None], own)
    for places in matching.values():
        same = [cast(MatchedPush, edits[i]) for i in places]
        units = torch.stack([edit.unit for edit in same])
        pushed = pushed_by(resid, step_size(same[0].matched, resid), units[:, None])
        after[places] = torch.where(chosen[:, None], pushed, resid)
    return after


def pushed_by(
    x: Float[Tensor, "*one node d_model"], size: Float[Tensor, "*one node"], units: Tensor
) -> Float[Tensor, "cell node d_model"]:
    """x + size · unit for each of some unit vectors, computed in float32."""
    return (x.float() + size[..., None] * units.to(x.device)).to(x.dtype)
