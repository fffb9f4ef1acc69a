"""Ways to push along one direction that are meant to disturb less else than plain addition."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from sae_lens import SAE
from torch import Tensor

from saelens_steer.directions.means_and_probes import Probe
from saelens_steer.errors import InputError
from saelens_steer.files import digest
from saelens_steer.steering import Edit, add, set_to
from saelens_steer.sweeps import activation_of
from saelens_steer.tensors import Resid, Vectors

NOTHING_LEFT = 1e-3
"""A direction of which less is left (relative) lies in what was taken out."""


@dataclass(frozen=True)
class NamedDirection:
    """A unit vector, the feature it is of, and the ways that found it."""

    name: str
    vector: Float[Tensor, " d_model"]
    feature: int | None = None
    found_by: str = ""


@dataclass(frozen=True)
class EditContext:
    """What edits know of the model beside the direction."""

    sae: SAE[Any]
    probe: Probe
    """Tells the prompts that are to be steered from those of other domains."""
    others: Vectors | None = None
    """Directions that lead from the sides to the other domains, [n, d_model]."""


def plain(direction: NamedDirection, step: float, context: EditContext) -> Edit:  # noqa: ARG001
    """x ← x + step · v."""
    return add(direction.vector, step)


def keep_norm(direction: NamedDirection, step: float, context: EditContext) -> Edit:  # noqa: ARG001
    """x ← (x + step · v), scaled back to the norm of x: what grows is the angle alone."""

    def act(resid: Resid) -> Resid:
        x = resid.float()
        pushed = x + step * direction.vector.to(x.device)
        size = x.norm(dim=-1, keepdim=True) / pushed.norm(dim=-1, keepdim=True)
        return (pushed * size).to(resid.dtype)

    return Edit(f"keep_norm({step:.4g})", act)


def apart(direction: NamedDirection, step: float, context: EditContext) -> Edit:
    """x ← x + step · v′, v′ what is left of v without the directions of other domains, unit."""
    return add(without(direction, context.others), step)


def without(direction: NamedDirection, others: Vectors | None) -> Float[Tensor, " d_model"]:
    """The direction orthogonal to all of some others, as a unit vector. Raises InputError where
    nothing is left or there are none."""
    if others is None:
        raise InputError("apart needs selection prompts of other domains than the two sides")
    basis = torch.linalg.qr(others.double().T).Q
    v = direction.vector.double()
    left = v - basis @ (basis.T @ v)
    if not float(left.norm()) > NOTHING_LEFT:
        raise InputError(f"nothing of {direction.name} is left apart from the other domains")
    return (left / left.norm()).float()


def where(direction: NamedDirection, step: float, context: EditContext) -> Edit:
    """x ← x + step · v where the probe finds a prompt that is to be steered (Lee et al. 2024)."""
    return _only(f"where({step:.4g})", direction, step, context.probe.holds)


def fires(direction: NamedDirection, step: float, context: EditContext) -> Edit:
    """x ← x + step · v where the feature is active."""

    def active(x: Resid) -> Tensor:
        assert direction.feature is not None
        z = activation_of(context.sae, x.flatten(0, 1), direction.feature)
        return (z > 0).view(x.shape[:2])

    return _only(f"fires({step:.4g})", direction, step, active)


def clamp(direction: NamedDirection, step: float, context: EditContext) -> Edit:
    """z_f ← what puts step · v into the reconstruction, whatever it was before."""
    assert direction.feature is not None
    size = float(context.sae.W_dec[direction.feature].detach().norm())
    return set_to(context.sae, direction.feature, step / size)


def _only(
    name: str, direction: NamedDirection, step: float, chosen: Callable[[Tensor], Tensor]
) -> Edit:
    def act(resid: Resid) -> Resid:
        pushed = resid.float() + step * direction.vector.to(resid.device)
        return torch.where(chosen(resid)[..., None].to(resid.device), pushed.to(resid.dtype), resid)

    return Edit(name, act)


BUILDERS: Mapping[str, Callable[[NamedDirection, float, EditContext], Edit]] = {
    "add": plain,
    "keep_norm": keep_norm,
    "apart": apart,
    "where": where,
    "fires": fires,
    "clamp": clamp,
}
OF_FEATURES = ("fires", "clamp")
"""Edits that a direction without a feature does not have."""


@dataclass(frozen=True)
class DirectionEdit:
    """A direction and an edit: `edit` as the config names it, such as add@last."""

    direction: NamedDirection
    edit: str

    @property
    def positions(self) -> str:
        return self.edit.partition("@")[2] or "all"

    @property
    def applies(self) -> bool:
        """Whether the direction has such an edit."""
        return self.direction.feature is not None or self._kind not in OF_FEATURES

    @property
    def _kind(self) -> str:
        return self.edit.partition("@")[0]

    def build(self, step: float, context: EditContext) -> tuple[str, Edit]:
        """The edit that pushes by `step` in units of x, and a digest of what decides it."""
        vector = self.direction.vector.numpy().tobytes().hex()
        name = digest(self.edit, vector, self.direction.feature, step)
        return name, BUILDERS[self._kind](self.direction, step, context)
