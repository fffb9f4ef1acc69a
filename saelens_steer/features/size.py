"""How large activations are at a hook: what strengths can be multiples of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from sae_lens import SAE
from torch import Tensor

from saelens_steer.activations import Activations
from saelens_steer.errors import InputError
from saelens_steer.sae.codec import encode
from saelens_steer.tensors import Vectors

CHUNK = 4096
"""Tokens encoded at once."""


@dataclass(frozen=True)
class Scale:
    """What cached activations say about size; empty where nothing was cached."""

    max_act: Mapping[int, float] = field(default_factory=dict)
    """A_max of a feature: its largest activation, in units of z."""
    resid_norm: float | None = None
    """Mean ‖x‖."""

    def a_max(self, feature: int) -> float:
        """A_max of a feature. Raises InputError where it is not known, or 0: it never fired."""
        found = self.max_act.get(feature)
        if found is None:
            raise InputError(f"max_act needs cached activations, for A_max of feature {feature}")
        if not found > 0:
            raise InputError(
                f"feature {feature} never fires on the cached activations, so it has no A_max: "
                "cache text on which it does, or use another unit of strength"
            )
        return found


NO_SCALE = Scale()


@torch.no_grad()
def max_activations(sae: SAE[Any], vectors: Vectors) -> Float[Tensor, " d_sae"]:
    """A_max of every feature over the vectors; memory does not grow with their number."""
    highest = torch.zeros(sae.cfg.d_sae)
    for part in vectors.split(CHUNK):
        highest = torch.maximum(highest, encode(sae, part).float().amax(0).cpu())
    return highest


def measured_scale(
    activations: Activations, sae: SAE[Any] | None = None, features: Sequence[int] = ()
) -> Scale:
    """Mean ‖x‖ of the cached activations, and A_max of some features of an SAE that reads them."""
    norm = float(activations.vectors.norm(dim=-1).double().mean())
    if sae is None or not features:
        return Scale(resid_norm=norm)
    highest = max_activations(sae, activations.vectors)
    return Scale({f: float(highest[f]) for f in features}, norm)
