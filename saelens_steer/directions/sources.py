"""Where directions under test come from: given vectors, named features, scores, means, a probe."""

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
from saelens_steer.directions.means_and_probes import difference_of_means, linear_probe
from saelens_steer.errors import InputError
from saelens_steer.features import NO_SCALE, Scale, Selection, select_features
from saelens_steer.steering import Directions, feature_directions, plain_directions
from saelens_steer.tensors import Vectors


def tested_directions(
    sae: SAE[Any], spec: SweepSpec, vectors: Vectors | None = None, scale: Scale = NO_SCALE
) -> Directions:
    """The candidates of a sweep: the given vectors, or else the features that spec names."""
    if vectors is not None:
        if vectors.ndim != 2 or vectors.shape[1] != sae.cfg.d_in:
            raise InputError(f"directions must have shape [n, {sae.cfg.d_in}]")
        if spec.features != "candidates":
            raise InputError("give either features or directions, not both")
        return plain_directions(vectors, spec.alpha_unit, scale)
    if isinstance(spec.features, str) or not spec.features:
        raise InputError("say which features to sweep: features=[…]")
    return feature_directions(sae, spec.features, spec.alpha_unit, scale)


@dataclass(frozen=True)
class FoundDirections:
    """The best directions that one method finds for one side, as unit vectors towards it."""

    method: str
    side: str
    names: tuple[str, ...]
    features: tuple[int | None, ...]
    vectors: Float[Tensor, "k d_model"]


@dataclass(frozen=True)
class DirectionFinder:
    """Finds directions by each method, from one SAE and the cached activations."""

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
        """One result per side; fewer than k directions if fewer features point that way."""
        if method in REFERENCES:
            vector = self._reference(method)
            return [
                FoundDirections(method, side, (f"{method}_{side}",), (None,), towards[None])
                for side, towards in zip(self.sides, (vector, -vector), strict=True)
            ]
        candidates = self.selection(method, k).candidates
        return [
            FoundDirections(
                method,
                side,
                tuple(f"feature_{f}" for f in candidates[side]),
                tuple(candidates[side]),
                unit_rows(self.sae, candidates[side]),
            )
            for side in self.sides
        ]

    def selection(self, method: str, k: int) -> Selection:
        """The k best features by a score; contrast scores may name a part, as in auroc@answer."""
        score, _, at = method.partition("@")
        found = self._contrast(at or self.spec.at)
        if score not in CAUSAL:
            return found.by(score, k)  # type: ignore[arg-type]
        push = self.spec.push * found.scale.mean_norm
        spec = self.spec.model_copy(update={"k": k})
        return rank_by(found, score, self.scoring, spec, push)  # type: ignore[arg-type]

    def _contrast(self, at: str) -> Selection:
        """The contrast scores at a part of the prompts, computed once."""
        if at not in self._seen:
            options: dict[str, Any] = {"at": at, "pool": self.spec.pool}
            self._seen[at] = select_features(self.sae, self.activations, *self.sides, **options)
        return self._seen[at]

    def _reference(self, method: str) -> Float[Tensor, " d_model"]:
        """The difference of means or the probe's direction, towards the positive side."""
        positive, negative = ([side] for side in self.sides)
        if method == "difference_of_means":
            return difference_of_means(self.activations, positive, negative)
        return linear_probe(self.activations, positive, negative).direction


def unit_rows(sae: SAE[Any], features: Sequence[int]) -> Vectors:
    """W_dec[f] as unit vectors, float32, CPU."""
    rows = sae.W_dec[list(features)].detach().float().cpu()
    return torch.nn.functional.normalize(rows, dim=1)
