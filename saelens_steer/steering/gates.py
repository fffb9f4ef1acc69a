"""Gates: conditions under which a push is applied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from sae_lens import SAE
from torch import Tensor

from saelens_steer.errors import InputError
from saelens_steer.sae import check_splice, encode, feature_indices, rows_at_once
from saelens_steer.tensors import FeatureLike, Vectors


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
        z = activations_of(self.sae, x.flatten(0, -2), self.features)
        return (z > 0).any(-1).view(x.shape[:-1])


def as_gate(gate: Gate | tuple[SAE[Any], FeatureLike]) -> Gate:
    """A gate as it is, (SAE, features) as a FeatureGate.

    Raises InputError for anything else, no or an unknown feature, or an SAE that does not read
    where it steers.
    """
    if isinstance(gate, Gate):
        return gate
    if not isinstance(gate, tuple) or len(gate) != 2 or not isinstance(gate[0], SAE):
        raise InputError("gate should be a Probe, or an SAE and a feature: gate=(sae, 3)")
    sae, features = gate
    check_splice(sae)
    if not (rows := feature_indices(sae, features)):
        raise InputError("gate names no feature, and so would never open: write gate=(sae, 3)")
    return FeatureGate(sae, tuple(rows))


def activations_of(
    sae: SAE[Any], vectors: Vectors, features: Sequence[int]
) -> Float[Tensor, "n feature"]:
    """z_f of each vector and feature, float32; each vector is encoded once."""
    parts, chosen = vectors.split(rows_at_once(sae)), list(features)
    z = [encode(sae, part)[:, chosen].float() for part in parts]
    return torch.cat(z).to(vectors.device)
