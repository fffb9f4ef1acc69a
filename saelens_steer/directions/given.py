"""The features and vectors that a call names as directions under test."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, SupportsFloat, SupportsIndex

import torch
from sae_lens import SAE

from saelens_steer.config import SOURCES, SweepSpec
from saelens_steer.directions.means_and_probes import Probe
from saelens_steer.errors import InputError
from saelens_steer.features import NO_SCALE, Scale
from saelens_steer.sae import check_feature, feature_indices
from saelens_steer.steering import CONTROL_PREFIX, Directions, SteeringVectors, tested_vectors
from saelens_steer.tensors import (
    Direction,
    FeatureLike,
    VectorLike,
    Vectors,
    as_direction,
    as_vectors,
)

DirectionLike = VectorLike | Probe | Mapping[SupportsIndex, SupportsFloat]
"""A vector [d_model], a probe (its unit direction), or a sum of features {index: weight}: weights
times decoder rows."""
DirectionsLike = (
    VectorLike | Sequence[VectorLike] | SteeringVectors | Probe | Mapping[str, DirectionLike]
)
"""Directions by name, {"caa": v, "both": {3: 1.0, 17: -0.5}}; or vectors [d_model] or [n, d_model],
or a list of vectors, which are called direction_0, direction_1, …; or vectors from a file, of which
those at the swept hook count, by their names; or a probe."""


@dataclass(frozen=True)
class GivenDirections:
    """Directions under test, before α's unit scales them."""

    names: tuple[str, ...]
    features: tuple[int | None, ...]
    """None for every vector that is not one feature's decoder row."""
    vectors: Vectors

    @classmethod
    def of(
        cls,
        sae: SAE[Any] | None,
        features: FeatureLike | None,
        directions: DirectionsLike | None,
        hook_name: str,
        d_model: int,
    ) -> GivenDirections:
        """Features first. Raises InputError for one that does not fit, or if there are none."""
        found: list[tuple[str, int | None, Direction]] = []
        if features is not None:
            if sae is None:
                raise InputError("features need an SAE, but sae is None: pass directions instead")
            for f in feature_indices(sae, features):
                found.append((f"feature_{f}", f, sae.W_dec[f].detach().float().cpu()))
        if directions is not None:
            named = _named(sae, directions, hook_name, d_model)
            found += [(name, None, vector) for name, vector in named]
        if not found:
            raise InputError("there is nothing to sweep: pass features=[…] or directions=…")
        names, indices, vectors = zip(*found, strict=True)
        return cls(names, indices, torch.stack(vectors))

    @property
    def named_features(self) -> dict[str, list[int]]:
        """`features` of a SweepSpec, if there are any."""
        indices = [f for f in self.features if f is not None]
        return {"features": indices} if indices else {}

    def check(self, spec: SweepSpec, sae: SAE[Any] | None) -> None:
        """Raise InputError for a name, a vector or a setting that the sweep cannot use."""
        prefixes = [CONTROL_PREFIX.get(family, family) for family in spec.families]
        for place, name in enumerate(self.names):
            if name in self.names[:place]:
                raise InputError(f"two directions are called {name!r}: rename one")
            if any(name.startswith(f"{prefix}_") for prefix in prefixes):
                raise InputError(f"{name!r} is a name for controls: rename the direction")
        self.scaled("raw")  # raises for a vector that is zero or not finite
        needs = spec.edit.options.needs
        if "encoder" in needs and sae is None:
            raise InputError(f"{spec.edit.label} needs an SAE: pass one, or use add or project_out")
        if None not in self.features:
            return
        name = self.names[self.features.index(None)]
        if "feature" in needs:
            raise InputError(
                f"{spec.edit.label} edits SAE features, and {name} is not one: use add or "
                f"project_out, or leave {name} out"
            )
        if spec.alpha_unit == "max_act":
            raise InputError(
                f"alpha_unit max_act applies to SAE features, and {name} has no A_max: use "
                f"resid_norm, or leave {name} out"
            )
        for family in spec.families:
            if family in SOURCES and "sae" in SOURCES[family].needs:
                raise InputError(
                    f"{family} controls are matched to features of an SAE, and {name} is not one: "
                    f"use covariance controls, or leave {name} out"
                )

    def scaled(self, alpha_unit: str, scale: Scale = NO_SCALE) -> Directions:
        """The directions as α = 1 adds them."""
        return tested_vectors(self.names, [*self.features], self.vectors, alpha_unit, scale)


def _named(
    sae: SAE[Any] | None, directions: DirectionsLike, hook_name: str, d_model: int
) -> Iterator[tuple[str, Direction]]:
    """Name and vector [d_model] of each direction."""
    if isinstance(directions, SteeringVectors):
        directions = dict(directions.at(hook_name))
    elif isinstance(directions, Probe):
        directions = {"probe": directions}
    elif not isinstance(directions, Mapping):
        if isinstance(directions, Sequence):
            listed = enumerate(directions)
            vectors = [as_direction(f"directions[{i}]", one, d_model) for i, one in listed]
        else:
            vectors = [*as_vectors("directions", directions, d_model)]
        directions = {f"direction_{i}": vector for i, vector in enumerate(vectors)}
    for name, given in directions.items():
        if not isinstance(name, str) or not name.strip():
            raise InputError(
                f'directions has the name {name!r}: names are strings, as in {{"caa": vector}}'
            )
        yield name, _vector(sae, f"directions[{name!r}]", given, d_model)


def _vector(sae: SAE[Any] | None, where: str, given: DirectionLike, d_model: int) -> Direction:
    if isinstance(given, Mapping):
        return _sum_of(sae, where, given)
    return as_direction(where, given.direction if isinstance(given, Probe) else given, d_model)


def _sum_of(
    sae: SAE[Any] | None, where: str, weights: Mapping[SupportsIndex, SupportsFloat]
) -> Direction:
    """Σ weight · W_dec[f], float32, CPU."""
    if sae is None:
        raise InputError(f"{where} is a sum of features, but sae is None: give a vector instead")
    if not weights:
        raise InputError(f"{where} is empty: write weights of features, such as {{3: 1.0}}")
    rows = [check_feature(sae, f) for f in weights]
    try:
        factors = torch.tensor([float(weight) for weight in weights.values()])
    except (TypeError, ValueError):
        raise InputError(f"{where} should hold numbers, as in {{3: 1.0, 17: -0.5}}") from None
    return factors @ sae.W_dec[rows].detach().float().cpu()
