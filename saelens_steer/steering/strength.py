"""Units of strength: what α = 1 adds along a feature or a direction."""

from __future__ import annotations

from typing import get_args

import torch

from saelens_steer.config import AlphaUnit
from saelens_steer.errors import InputError
from saelens_steer.features import NO_SCALE, Scale
from saelens_steer.tensors import Vectors

MEASURED = ("max_act", "resid_norm", "kl")
"""Units that take cached activations to know."""


def unit_vectors(
    vectors: Vectors, features: list[int | None], unit: str, scale: Scale = NO_SCALE
) -> Vectors:
    """The vectors as α = 1 adds them, [n, d_model].

    raw: v. unit and kl: v/‖v‖ (kl finds how much of it later). max_act: A_max(f) · v.
    resid_norm: mean ‖x‖ · v/‖v‖. Raises InputError where the unit's size is not known.
    """
    if unit == "raw":
        return vectors
    if unit == "max_act":
        sizes = [_max_act(f, scale) for f in features]
        return vectors * torch.tensor(sizes, device=vectors.device)[:, None]
    directions = vectors / vectors.norm(dim=-1, keepdim=True)
    if unit in ("unit", "kl"):
        return directions
    if unit == "resid_norm":
        if scale.resid_norm is None:
            raise InputError("alpha_unit resid_norm needs cached activations, for mean ‖x‖")
        return scale.resid_norm * directions
    raise InputError(f"alpha_unit must be one of {', '.join(get_args(AlphaUnit))}, not {unit!r}")


def _max_act(feature: int | None, scale: Scale) -> float:
    if feature is None:
        raise InputError("alpha_unit max_act is for features of an SAE: a vector has no A_max")
    return scale.a_max(feature)
