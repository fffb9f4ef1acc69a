"""Where directions come from: features by each score, means, probes, given vectors, controls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from sae_lens import SAE
from torch import Tensor

from saelens_steer.activations import Activations
from saelens_steer.config import CAUSAL, REFERENCES, SelectSpec, SweepSpec
from saelens_steer.directions.causal import CausalScoring, rank_by
from saelens_steer.directions.controls import ControlInputs, controls_of
from saelens_steer.directions.means_and_probes import difference_of_means, linear_probe, vectors_of
from saelens_steer.errors import InputError
from saelens_steer.features import NO_SCALE, Scale, Selection, firing_rates, select_features
from saelens_steer.steering import (
    Directions,
    feature_directions,
    matched_controls,
    own_controls,
    plain_directions,
)
from saelens_steer.sweeps import Measurement
from saelens_steer.tensors import Vectors


def tested_directions(
    sae: SAE[Any], spec: SweepSpec, vectors: Vectors | None = None, scale: Scale = NO_SCALE
) -> Directions:
    """The candidates of a sweep: vectors of the caller's own, or the features that spec names."""
    if vectors is not None:
        if vectors.ndim != 2 or vectors.shape[1] != sae.cfg.d_in:
            raise InputError(f"directions must have shape [n, {sae.cfg.d_in}]")
        if spec.features != "candidates":
            raise InputError("give either features or directions, not both")
        return plain_directions(vectors, spec.alpha_unit, scale)
    if isinstance(spec.features, str) or not spec.features:
        raise InputError("say which features to sweep: features=[…]")
    return feature_directions(sae, spec.features, spec.alpha_unit, scale)


def with_controls(
    measurement: Measurement, tested: Directions, activations: Activations | None
) -> Directions:
    """The directions under test, then the controls of each family of the sweep."""
    spec, rates = measurement.spec, None
    if "feature" in spec.families and measurement.sae is not None and activations is not None:
        rates = firing_rates(activations, measurement.sae)
    d_model = measurement.model.cfg.d_model
    known = ControlInputs(
        d_model, activations, tested.vectors, tested.features, measurement.sae, rates
    )
    everything = tested
    for family in spec.families:
        drawn = controls_of(family, spec.n_controls, known, spec.seed)
        everything += (
            own_controls(family, drawn, tested)
            if spec.own_controls
            else matched_controls(family, drawn, tested.sizes)
        )
    return everything


START = "assistant_start"


@dataclass(frozen=True)
class FoundDirections:
    """The first directions that a way of choosing finds for a side, unit vectors towards it."""

    method: str
    side: str
    names: tuple[str, ...]
    features: tuple[int | None, ...]
    vectors: Float[Tensor, "k d_model"]


@dataclass(frozen=True)
class DirectionFinder:
    """Everything that ways of choosing read."""

    sae: SAE[Any]
    activations: Activations
    spec: SelectSpec
    scoring: CausalScoring
    _seen: dict[str, Selection] = field(default_factory=dict, init=False, repr=False)

    @property
    def sides(self) -> tuple[str, str]:
        return self.spec.positive, self.spec.negative

    @property
    def scale(self) -> Scale:
        """A_max of every feature and mean ‖x‖, over all cached activations."""
        return self._contrast(self.spec.at).scale

    def directions_by(self, method: str, k: int) -> list[FoundDirections]:
        """One for each side; with fewer than k directions where fewer point that way."""
        if method in REFERENCES:
            vector = self._reference(method)
            pair = zip(self.sides, (vector, -vector), strict=True)
            return [
                FoundDirections(method, s, (f"{method}_{s}",), (None,), v[None]) for s, v in pair
            ]
        found = self.selection(method, k)
        return [self._features(method, side, found.candidates[side]) for side in self.sides]

    def selection(self, method: str, k: int) -> Selection:
        """The features that a score chooses; contrast scores may say where, as in auroc@answer."""
        base, _, at = method.partition("@")
        found = self._contrast(at or self.spec.at)
        if base not in CAUSAL:
            return found.by(base, k)  # type: ignore[arg-type]
        push = self.spec.push * found.scale.mean_norm
        spec = self.spec.model_copy(update={"k": k})
        return rank_by(found, base, self.scoring, spec, push)  # type: ignore[arg-type]

    def _contrast(self, at: str) -> Selection:
        """The contrast scores at a part of the prompts, computed once."""
        if at not in self._seen:
            options: dict[str, Any] = {"at": at, "pool": self.spec.pool}
            self._seen[at] = select_features(self.sae, self.activations, *self.sides, **options)
        return self._seen[at]

    def _features(self, method: str, side: str, features: Sequence[int]) -> FoundDirections:
        names = tuple(f"feature_{f}" for f in features)
        return FoundDirections(method, side, names, (*features,), unit_rows(self.sae, features))

    def _reference(self, method: str) -> Float[Tensor, " d_model"]:
        """Towards the positive side."""
        positive, negative = ([side] for side in self.sides)
        if method == "difference_of_means":
            return difference_of_means(self.activations, positive, negative)
        sides = (vectors_of(self.activations, side, START) for side in (positive, negative))
        return linear_probe(*sides).direction


def unit_rows(sae: SAE[Any], features: Sequence[int]) -> Vectors:
    """W_dec[f] as unit vectors, float32, CPU."""
    rows = sae.W_dec[list(features)].detach().float().cpu()
    return torch.nn.functional.normalize(rows, dim=1)
