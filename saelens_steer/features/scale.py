"""The scale of activations at a hook, for strengths in multiples of it."""

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
from saelens_steer.sae import codec, rows_at_once
from saelens_steer.tensors import Vectors


@torch.no_grad()
def feature_activations(sae: SAE[Any], vectors: Vectors) -> Float[Tensor, "n d_sae"]:
    """Feature activations z of the vectors, float32 on the CPU, computed in chunks.

    Raises InputError for an SAE without an encoder, and for one whose z may be negative.
    """
    codec.check_positive(sae)
    chunks = vectors.split(rows_at_once(sae))
    found = [codec.encode(sae, v).float().cpu() for v in chunks]
    return found[0] if len(found) == 1 else torch.cat(found)


@dataclass(frozen=True)
class Scale:
    """The scale of cached activations; empty if nothing was cached."""

    max_act: Mapping[int, float] = field(default_factory=dict)
    """Feature → A_max, its largest activation z."""
    resid_norm: float | None = None
    """Mean ‖x‖."""

    @property
    def mean_norm(self) -> float:
        """Mean ‖x‖. Raises InputError if nothing was cached."""
        if self.resid_norm is None:
            raise InputError("mean ‖x‖ is unknown: cache activations to use it as a unit")
        return self.resid_norm

    def a_max(self, feature: int) -> float:
        """A_max of a feature. Raises InputError if it is unknown, or 0 because it never fired."""
        found = self.max_act.get(feature)
        if found is None:
            raise InputError(f"A_max of feature {feature} is unknown: cache activations")
        if not found > 0:
            raise InputError(
                f"feature {feature} never fires on the cached activations, so it has no A_max: "
                "cache text on which it fires, or use another unit of strength"
            )
        return found

    def of(self, features: Sequence[int]) -> Scale:
        """The scale restricted to these features."""
        return Scale({f: self.max_act[f] for f in features}, self.resid_norm)


NO_SCALE = Scale()


def measured_scale(
    activations: Activations, sae: SAE[Any] | None = None, features: Sequence[int] = ()
) -> Scale:
    """Mean ‖x‖ of the cached activations, and A_max of the given features.

    Computed in chunks, so memory does not grow with the number of tokens.
    """
    wanted, total = list(features) if sae is not None else [], 0.0
    highest = torch.zeros(len(wanted))
    for x in activations.chunks(rows_at_once(sae) if sae is not None else codec.CHUNK):
        total += float(x.norm(dim=-1).double().sum())
        if sae is not None and wanted:
            highest = torch.maximum(highest, feature_activations(sae, x)[:, wanted].amax(0))
    found = dict(zip(wanted, highest.tolist(), strict=True))
    return Scale(found, total / len(activations))


@torch.no_grad()
def firing_rates(activations: Activations, sae: SAE[Any]) -> Float[Tensor, " d_sae"]:
    """Share of the cached tokens on which each feature fires (z > 0), float64, in chunks.

    Raises InputError for an SAE without an encoder.
    """
    fired = torch.zeros(sae.cfg.d_sae, dtype=torch.int64)
    for x in activations.chunks(rows_at_once(sae)):
        fired += (feature_activations(sae, x) > 0).sum(0)
    return fired.double() / len(activations)
