"""Gates: conditions under which a push is applied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from sae_lens import SAE
from torch import Tensor

from saelens_steer.sae import check_feature, check_splice, encode
from saelens_steer.tensors import Vectors

ENCODED = 4096
"""Vectors encoded at once."""


@runtime_checkable
class Gate(Protocol):
    """Decides which activations are pushed; a Probe is one."""

    def holds(self, x: Float[Tensor, "*rows d_model"]) -> Bool[Tensor, "*rows"]:
        """Whether each activation is pushed."""
        ...


@dataclass(frozen=True)
class FeatureGate:
    """Pushes activations on which any of the features is active."""

    sae: SAE[Any]
    features: tuple[int, ...]

    def holds(self, x: Float[Tensor, "*rows d_model"]) -> Bool[Tensor, "*rows"]:
        """Whether z_f > 0 for at least one feature."""
        flat = x.flatten(0, -2)
        active = [activation_of(self.sae, flat, feature) > 0 for feature in self.features]
        return torch.stack(active).any(0).view(x.shape[:-1])


def as_gate(gate: Gate | tuple[SAE[Any], int | Sequence[int]]) -> Gate:
    """A gate as it is, (SAE, features) as a FeatureGate.

    Raises InputError for an unknown feature, or an SAE that does not read where it steers.
    """
    if not isinstance(gate, tuple):
        return gate
    sae, wanted = gate
    check_splice(sae)
    features = (wanted,) if isinstance(wanted, int) else tuple(wanted)
    return FeatureGate(sae, tuple(check_feature(sae, feature) for feature in features))


def activation_of(sae: Any, vectors: Vectors, feature: int) -> Float[Tensor, " n"]:
    """z_f of each vector, float32."""
    z = [encode(sae, part)[:, feature].float() for part in vectors.split(ENCODED)]
    return torch.cat(z).to(vectors.device)
