"""Edits that push along one direction, most of them meant to disturb other domains less."""

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
"""A direction lies in the span of the others if this little (relative) is left outside it."""
OF_FEATURES = ("fires", "clamp")
"""Edits that need a direction of a feature."""


@dataclass(frozen=True)
class NamedDirection:
    """A unit vector, its feature if it has one, and the methods that found it."""

    name: str
    vector: Float[Tensor, " d_model"]
    feature: int | None = None
    found_by: str = ""


@dataclass(frozen=True)
class EditContext:
    """What edits read besides the direction."""

    sae: SAE[Any]
    probe: Probe
    """Tells the prompts to steer from those of other domains."""
    others: Vectors | None = None
    """Directions from the two sides to the other domains, [n, d_model]."""


@dataclass(frozen=True)
class DirectionEdit:
    """A direction and an edit along it; `edit` as the config names it, such as add@last."""

    direction: NamedDirection
    edit: str

    @property
    def kind(self) -> str:
        return self.edit.partition("@")[0]

    @property
    def positions(self) -> str:
        return self.edit.partition("@")[2] or "all"

    @property
    def applies(self) -> bool:
        """Whether the direction can be edited this way."""
        return self.direction.feature is not None or self.kind not in OF_FEATURES

    def build(self, step: float, context: EditContext) -> tuple[str, Edit]:
        """A digest of everything that decides the edit, and the edit, which pushes by `step` in
        units of x."""
        vector = self.direction.vector.numpy().tobytes().hex()
        name = digest(self.edit, vector, self.direction.feature, step)
        return name, BUILDERS[self.kind](self.direction, step, context)


def keep_norm(direction: NamedDirection, step: float, context: EditContext) -> Edit:  # noqa: ARG001
    """x ← x + step · v, scaled back to the norm of x, so only the angle changes."""

    def act(resid: Resid) -> Resid:
        x = resid.float()
        pushed = x + step * direction.vector.to(x.device)
        size = x.norm(dim=-1, keepdim=True) / pushed.norm(dim=-1, keepdim=True)
        return (pushed * size).to(resid.dtype)

    return Edit(f"keep_norm({step:.4g})", act)


def apart(direction: NamedDirection, step: float, context: EditContext) -> Edit:
    """x ← x + step · v′, with v′ the unit part of v orthogonal to the other domains' directions.

    Raises InputError if there are no other domains or nothing of v is left.
    """
    if context.others is None:
        raise InputError("apart needs selection prompts of other domains than the two sides")
    basis = torch.linalg.qr(context.others.double().T).Q
    v = direction.vector.double()
    left = v - basis @ (basis.T @ v)
    if not float(left.norm()) > NOTHING_LEFT:
        raise InputError(f"nothing of {direction.name} is left apart from the other domains")
    return add((left / left.norm()).float(), step)


def where(direction: NamedDirection, step: float, context: EditContext) -> Edit:
    """x ← x + step · v if the probe finds a prompt to steer (Lee et al. 2024)."""
    return _add_if(context.probe.holds, "where", direction, step)


def fires(direction: NamedDirection, step: float, context: EditContext) -> Edit:
    """x ← x + step · v if the feature is active."""

    def active(x: Resid) -> Tensor:
        assert direction.feature is not None
        z = activation_of(context.sae, x.flatten(0, 1), direction.feature)
        return (z > 0).view(x.shape[:2])

    return _add_if(active, "fires", direction, step)


def _add_if(
    condition: Callable[[Resid], Tensor], name: str, direction: NamedDirection, step: float
) -> Edit:
    def act(resid: Resid) -> Resid:
        pushed = resid.float() + step * direction.vector.to(resid.device)
        chosen = condition(resid)[..., None].to(resid.device)
        return torch.where(chosen, pushed.to(resid.dtype), resid)

    return Edit(f"{name}({step:.4g})", act)


def clamp(direction: NamedDirection, step: float, context: EditContext) -> Edit:
    """z_f ← the value that contributes step · v to the reconstruction, whatever it was before."""
    assert direction.feature is not None
    size = float(context.sae.W_dec[direction.feature].detach().norm())
    return set_to(context.sae, direction.feature, step / size)


BUILDERS: Mapping[str, Callable[[NamedDirection, float, EditContext], Edit]] = {
    "add": lambda direction, step, _: add(direction.vector, step),
    "keep_norm": keep_norm,
    "apart": apart,
    "where": where,
    "fires": fires,
    "clamp": clamp,
}
