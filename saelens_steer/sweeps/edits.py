"""The edits of a sweep's cells: the edit itself for candidates, matched pushes for controls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

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
    of_parts,
)
from saelens_steer.sweeps.plan import Cell
from saelens_steer.tensors import Direction, Resid

UNEDITED = Edit("none", lambda x: x, key="unsteered")


def cell_edits(
    spec: SweepSpec, context: EditContext, directions: Directions, cells: Sequence[Cell]
) -> list[Edit] | None:
    """The edit of each cell; None if every cell just adds its direction.

    A control's push has the ‖Δx‖ of its candidate's edit at each activation, and the sign of α.
    Raises InputError if the edit does not apply to a direction.
    """
    if spec.edit.is_push:
        return None
    place = {n: d for d, n in enumerate(directions.names) if directions.families[d] == CANDIDATE}
    built: dict[Cell, Edit] = {}

    def tested(d: int, alpha: float) -> Edit:
        if (d, alpha) not in built:
            feature = directions.features[d]
            features = () if feature is None else (feature,)
            target = Target(directions.names[d], directions.vectors[d : d + 1], features)
            built[d, alpha] = edit_at(spec.edit, target, alpha, spec.alpha_unit, context)
        return built[d, alpha]

    def each(d: int, alpha: float) -> Edit:
        if alpha == 0:
            return UNEDITED
        if directions.families[d] == CANDIDATE:
            return tested(d, alpha)
        vector = directions.vectors[d]
        unit = vector / vector.norm() * (1 if alpha > 0 else -1)
        return MatchedPush.of(unit, tested(place[str(directions.matched_to[d])], alpha))

    return [each(d, alpha) for d, alpha in cells]


def edit_at(edit: EditSpec, target: Target, alpha: float, unit: str, context: EditContext) -> Edit:
    """The edit at strength α: a multiple of its vector, a factor of 1 + α, or a value of z.

    A value z_f is chosen so that z_f · W_dec[f] has the norm of the push α: z_f = α if the unit is
    raw.
    """
    strength, amount = edit.options.strength, alpha
    if strength == "factor":
        amount = 1 + alpha
    elif strength == "value" and unit != "raw" and target.features:
        row = context.sae.W_dec[target.features[0]].detach().float().cpu()
        pushed = 1.0 if unit == "unit" else float(target.vectors[0].norm())
        amount = alpha * pushed / float(row.norm())
    return build_edit(edit, target, amount, context)


@dataclass(frozen=True, kw_only=True, repr=False)
class MatchedPush(Edit):
    """A push along `unit` with the ‖Δx‖ of another edit at each activation."""

    unit: Direction
    matched: Edit

    @classmethod
    def of(cls, unit: Direction, matched: Edit) -> MatchedPush:
        def act(x: Resid) -> Resid:
            return pushed_by(x, step_size(matched, x), unit)

        key = digest("matched push", matched.key, unit.numpy().tobytes().hex())
        same: dict[str, Any] = {"pointwise": matched.pointwise, **of_parts([matched])}
        return cls("matched push", act, key=key, unit=unit, matched=matched, **same)


def step_size(edit: Edit, x: Resid) -> Float[Tensor, "batch pos"]:
    """‖Δx‖ of an edit at each activation, float32."""
    return (edit(x).float() - x.float()).norm(dim=-1)


def edited(
    edits: Sequence[Edit],
    resid: Float[Tensor, "one_or_cell node d_model"],
    chosen: Bool[Tensor, " node"],
) -> Float[Tensor, "cell node d_model"]:
    """The activations under each edit, at the chosen nodes.

    All pushes are one operation. If the cells share one activation, so are all controls matched to
    the same edit, whose ‖Δx‖ is then computed once.
    """
    after = resid.new_empty(len(edits), *resid.shape[1:])
    pushes, matching = list[int](), dict[int, list[int]]()
    for i, edit in enumerate(edits):
        if edit.push is not None:
            pushes.append(i)
        elif isinstance(edit, MatchedPush) and len(resid) == 1:
            matching.setdefault(id(edit.matched), []).append(i)
        else:
            before = resid if len(resid) == 1 else resid[i : i + 1]
            after[i] = edit_where([edit], before, chosen[None])[0]
    if pushes:
        before = resid if len(resid) == 1 else resid[pushes]
        steps = torch.stack([cast(Tensor, edits[i].push) for i in pushes]).to(resid)
        after[pushes] = torch.where(chosen[:, None], before + steps[:, None], before)
    for places in matching.values():
        same = [cast(MatchedPush, edits[i]) for i in places]
        units = torch.stack([edit.unit for edit in same])
        pushed = pushed_by(resid, step_size(same[0].matched, resid), units[:, None])
        after[places] = torch.where(chosen[:, None], pushed, resid)
    return after


def pushed_by(
    x: Float[Tensor, "*one node d_model"], size: Float[Tensor, "*one node"], units: Tensor
) -> Float[Tensor, "cell node d_model"]:
    """x + size · unit for each unit vector, computed in float32."""
    return (x.float() + size[..., None] * units.to(x.device)).to(x.dtype)
