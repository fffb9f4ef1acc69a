"""Gates: conditions under which a push is applied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from sae_lens import SAE
from torch import Tensor

from saelens_steer.sae import check_encoder, check_feature, encode
from saelens_steer.tensors import Vectors

ENCODED = 4096
"""Vectors encoded at once."""


@runtime_checkable
class Gate(Protocol):
    """Anything that decides for each activation, such as a Probe."""

    def holds(self, x: Float[Tensor, "*rows d_model"]) -> Bool[Tensor, "*rows"]:
        """Whether each activation lets the push through."""
        ...


@dataclass(frozen=True)
class FeatureGate:
    """Open while any of some features of an SAE is active."""

    sae: SAE[Any]
    features: tuple[int, ...]

    def holds(self, x: Float[Tensor, "*rows d_model"]) -> Bool[Tensor, "*rows"]:
        """Whether z_f > 0 for one of the features."""
        flat = x.flatten(0, -2)
        active = [activation_of(self.sae, flat, feature) > 0 for feature in self.features]
        return torch.stack(active).any(0).view(x.shape[:-1])


def as_gate(gate: Gate | tuple[SAE[Any], int | Sequence[int]]) -> Gate:
    """A gate, or (SAE, features) as one. Raises InputError for an unknown feature or no encoder."""
    if not isinstance(gate, tuple):
        return gate
    sae, given = gate
    check_encoder(sae)
    features = (given,) if isinstance(given, int) else tuple(given)
    return FeatureGate(sae, tuple(check_feature(sae, feature) for feature in features))


def activation_of(sae: Any, vectors: Vectors, feature: int) -> Float[Tensor, " n"]:
    """z_f of each vector, float32."""
    z = [encode(sae, part)[:, feature].float() for part in vectors.split(ENCODED)]
    return torch.cat(z).to(vectors.device)
