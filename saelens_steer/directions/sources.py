"""Sources of directions: features, vectors, scores, means, probes and controls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from sae_lens import SAE
from torch import Tensor

from saelens_steer.activations import Activations
from saelens_steer.config import (
    CAUSAL,
    CONTRASTS,
    FAMILIES,
    SOURCES,
    SelectSpec,
    SweepSpec,
    is_custom,
    is_file,
)
from saelens_steer.directions.causal import CausalScoring, rank_by
from saelens_steer.directions.controls import ControlInputs, controls_of
from saelens_steer.directions.means_and_probes import difference_of_means, linear_probe
from saelens_steer.errors import InputError
from saelens_steer.features import NO_SCALE, Scale, Selection, firing_rates, select_features
from saelens_steer.functions import imported
from saelens_steer.sae import check_feature
from saelens_steer.steering import (
    CONTROL_PREFIX,
    Directions,
    feature_directions,
    tested_vectors,
    vectors_at,
)
from saelens_steer.tensors import Direction, Vectors, as_direction, as_vectors


def tested_directions(sae: SAE[Any], spec: SweepSpec, scale: Scale = NO_SCALE) -> Directions:
    """The features in the spec as directions under test."""
    return feature_directions(sae, spec.named, spec.alpha_unit, scale)


@dataclass(frozen=True)
class FoundDirections:
    """A source's best directions for one side, as unit vectors."""

    method: str
    side: str
    names: tuple[str, ...]
    features: tuple[int | None, ...]
    vectors: Float[Tensor, "k d_model"]


@dataclass(frozen=True)
class DirectionFinder:
    """Finds directions by source, from an SAE and cached activations."""

    sae: SAE[Any]
    activations: Activations
    spec: SelectSpec
    scoring: CausalScoring
    _seen: dict[str, Selection] = field(default_factory=dict, init=False, repr=False)
    _known: dict[tuple[str, str], tuple[int | None, Direction]] = field(
        default_factory=dict, init=False, repr=False
    )
    """Side and name → the feature and direction that were found under it."""

    @property
    def sides(self) -> tuple[str, str]:
        return self.spec.positive, self.spec.negative

    @property
    def rivals(self) -> tuple[str, str]:
        """The domain with which each side is compared."""
        if (reference := self.spec.reference) is not None:
            return reference, reference
        return self.spec.negative, self.spec.positive

    @property
    def scale(self) -> Scale:
        """A_max of every feature, and mean ‖x‖, over the cached activations."""
        return self._contrast(self.spec.at).scale

    def directions_by(self, source: str | int, k: int) -> list[FoundDirections]:
        """The best k directions of a source for each side, or fewer if it is exhausted.

        Scores find features for each side. Means, probes and custom functions find directions
        towards the positive side, which are reversed for the negative one, or directions from
        `select.reference` towards each side. Features, files and controls are the same for both.
        Raises InputError if a source finds nothing, or another direction under the name of one
        found before.
        """
        if isinstance(source, int):
            found = _same(self, str(source), *_features(self.sae, [source]))
        elif is_custom(source):
            found = _by_function(self, source, k)
        elif is_file(source):
            found = _of_file(self, source, k)
        else:
            found = FINDERS[source.partition("@")[0]](self, source, k)
        for one in found:
            for name, feature, vector in zip(one.names, one.features, one.vectors, strict=True):
                known = self._known.setdefault((one.side, name), (feature, vector))
                if known[0] != feature or not torch.equal(known[1], vector):
                    raise InputError(
                        f"two directions are called {name!r}, the second found by {source}: rename "
                        "one, or leave one out"
                    )
        return found

    def under_test(self, sources: Sequence[str | int], k: int, alpha_unit: str) -> Directions:
        """The directions of these sources for a sweep, scaled to the unit.

        Directions found for both sides, or as opposites, appear once, since both signs of α are
        swept. Vectors other than decoder rows are unit vectors.
        """
        found: dict[str, tuple[int | None, Float[Tensor, " d_model"]]] = {}
        for source in sources:
            for one in self.directions_by(source, k):
                for name, feature, vector in zip(one.names, one.features, one.vectors, strict=True):
                    opposite = feature is None and self.spec.reference is None
                    if opposite and one.side != self.sides[0]:
                        continue
                    row = vector if feature is None else self.sae.W_dec[feature].detach()
                    found[name] = feature, row.float().cpu()
        if not found:
            raise InputError(f"no direction to sweep was found by {', '.join(map(str, sources))}")
        features, vectors = zip(*found.values(), strict=True)
        return tested_vectors([*found], [*features], torch.stack(vectors), alpha_unit, self.scale)

    def selection(self, method: str, k: int) -> Selection:
        """The k best features by a score; contrast scores may add a part, as in auroc@answer."""
        score, _, at = method.partition("@")
        found = self._contrast(at or self.spec.at)
        if score not in CAUSAL:
            return found.by(score, k)  # type: ignore[arg-type]
        push = self.spec.push * found.scale.mean_norm
        spec = self.spec.model_copy(update={"k": k})
        return rank_by(found, score, self.scoring, spec, push)  # type: ignore[arg-type]

    def _contrast(self, at: str) -> Selection:
        """Contrast scores at a part of the prompts, computed once."""
        if at not in self._seen:
            options: dict[str, Any] = {"at": at, "pool": self.spec.pool}
            options["reference"] = self.spec.reference
            self._seen[at] = select_features(self.sae, self.activations, *self.sides, **options)
        return self._seen[at]


def by_score(finder: DirectionFinder, source: str, k: int) -> list[FoundDirections]:
    """Decoder rows of each side's best features."""
    candidates = finder.selection(source, k).candidates
    return [
        FoundDirections(source, side, *_features(finder.sae, candidates[side]))
        for side in finder.sides
    ]


def by_activations(finder: DirectionFinder, source: str, k: int) -> list[FoundDirections]:  # noqa: ARG001
    """The difference of means of the two sides, or a linear probe between them."""

    def towards(side: str, rival: str) -> Direction:
        if source == "linear_probe":
            return linear_probe(finder.activations, side, rival).direction
        return difference_of_means(finder.activations, side, rival)

    return _towards_sides(finder, source, lambda *pair: [towards(*pair)])


def at_random(finder: DirectionFinder, source: str, k: int) -> list[FoundDirections]:
    """The first k controls of a family, drawn with the sweep's seed.

    Families that read the directions under test get the candidates of select.
    """
    sae, needs = finder.sae, SOURCES[source].needs
    spec, features = finder.spec, list[int]()
    if "tested" in needs:
        features = finder.selection(spec.score, spec.k).features
    rates = firing_rates(finder.activations, sae) if "sae" in needs else None
    tested = unit_rows(sae, features)
    inputs = ControlInputs(
        finder.activations.d_model, finder.activations, tested, tuple(features), sae, rates
    )
    vectors = controls_of(source, k, inputs, finder.scoring.measurement.spec.seed)
    prefix = CONTROL_PREFIX.get(source, source)
    names = tuple(f"{prefix}_{i:04d}" for i in range(len(vectors)))
    return _same(finder, source, names, (None,) * len(names), vectors)


FINDERS: Mapping[str, Callable[[DirectionFinder, str, int], list[FoundDirections]]] = {
    **dict.fromkeys((*CONTRASTS, *CAUSAL), by_score),
    **dict.fromkeys(("difference_of_means", "linear_probe"), by_activations),
    **dict.fromkeys(FAMILIES, at_random),
}
"""Name of a source → the function (finder, source, k) that finds its directions."""


def _by_function(finder: DirectionFinder, source: str, k: int) -> list[FoundDirections]:
    """`function(activations, positive, negative)` → [d_model] or [n, d_model], best first.

    Raises InputError for a direction that is zero or not finite.
    """
    function, activations = imported(source, "source of directions"), finder.activations

    def towards(side: str, rival: str) -> list[Direction]:
        vectors = as_vectors(source, function(activations, side, rival), activations.d_model)[:k]
        units = [as_direction(source, one, vectors.shape[1]) for one in vectors]
        return [one / one.norm() for one in units]

    return _towards_sides(finder, source, towards)


def _of_file(finder: DirectionFinder, source: str, k: int) -> list[FoundDirections]:
    """The vectors of a file at the run's hook."""
    activations = finder.activations
    found = vectors_at(source, activations.hook_name, activations.d_model)
    names = tuple(found)[:k]
    vectors = torch.stack([found[name] for name in names])
    return _same(finder, source, names, (None,) * len(names), vectors)


def _features(
    sae: SAE[Any], features: Sequence[int]
) -> tuple[tuple[str, ...], tuple[int, ...], Vectors]:
    """Names, indices and unit decoder rows of features."""
    rows = tuple(check_feature(sae, feature) for feature in features)
    return tuple(f"feature_{f}" for f in rows), rows, unit_rows(sae, rows)


def _same(
    finder: DirectionFinder,
    source: str,
    names: tuple[str, ...],
    features: tuple[int | None, ...],
    vectors: Vectors,
) -> list[FoundDirections]:
    """The same directions for both sides."""
    units = torch.nn.functional.normalize(vectors, dim=1)
    return [FoundDirections(source, side, names, features, units) for side in finder.sides]


def _towards_sides(
    finder: DirectionFinder, source: str, towards: Callable[[str, str], list[Direction]]
) -> list[FoundDirections]:
    """What `towards(side, rival)` finds: for the positive side, negated for the negative side; with
    a reference, for each side."""
    found = [torch.stack(towards(finder.sides[0], finder.rivals[0]))]
    mirrored = finder.spec.reference is None
    found.append(-found[0] if mirrored else torch.stack(towards(finder.sides[1], finder.rivals[1])))
    base = source.rpartition(":")[2]
    made = []
    for side, units in zip(finder.sides, found, strict=True):
        numbers = [f"{base}_{i}" for i in range(len(units))] if len(units) > 1 else [base]
        names = tuple(f"{name}_{side}" for name in numbers)
        made.append(FoundDirections(source, side, names, (None,) * len(units), units))
    return made


def unit_rows(sae: SAE[Any], features: Sequence[int]) -> Vectors:
    """W_dec[f] as unit vectors, float32, CPU."""
    rows = sae.W_dec[list(features)].detach().float().cpu()
    return torch.nn.functional.normalize(rows, dim=1)
