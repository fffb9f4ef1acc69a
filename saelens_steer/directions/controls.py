"""Families of random directions, the controls of directions under test.

A family is a function of `ControlInputs` and a random generator that yields blocks of directions
[block, d_model], float64, not normalised. A larger draw begins with the smaller one.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from sae_lens import SAE
from torch import Tensor

from saelens_steer.activations import Activations
from saelens_steer.config import SOURCES, check_memory, counted, is_custom, whole_seed
from saelens_steer.errors import InputError, or_known
from saelens_steer.features import firing_rates
from saelens_steer.functions import imported
from saelens_steer.progress import say
from saelens_steer.steering import (
    Directions,
    matched_controls,
    orthogonal_part,
    per_candidate_controls,
)
from saelens_steer.sweeps import Measurement
from saelens_steer.tensors import VectorLike, Vectors, as_vectors

CHUNK = 4096
"""Vectors per chunk."""
BLOCK = 64
"""Directions per block."""
SAME = 1e-3
"""Relative distance below which vectors count as equal, as in a prefix that prompts share."""
TRIES = 10_000
"""Consecutive blocks without a usable pair before the search fails."""


@dataclass(frozen=True)
class ControlInputs:
    """Inputs of families. A family raises InputError if one that it needs is missing."""

    d_model: int
    vectors: Float[Tensor, "tokens d_model"] | Activations | None = None
    """Residual vectors at the hook."""
    tested: Float[Tensor, "candidates d_model"] | None = None
    features: tuple[int | None, ...] = ()
    """The feature of each direction under test."""
    sae: SAE[Any] | None = None
    rates: Float[Tensor, " d_sae"] | None = None
    """Firing rate of each feature at the hook (see `features.firing_rates`)."""


ControlFamily = Callable[[ControlInputs, torch.Generator], Iterator[Tensor]]


def with_controls(
    measurement: Measurement,
    tested: Directions,
    activations: Activations | None,
    encoded: Activations | None = None,
) -> Directions:
    """The directions under test, followed by the controls of each family of the sweep.

    `activations` are of the steered hook; `encoded`, of the hook that the SAE reads if it differs.
    """
    spec, sae, rates = measurement.spec, measurement.sae, None
    read = activations if encoded is None else encoded
    if "feature" in spec.families and sae is not None and read is not None:
        rates = firing_rates(read, sae)
    d_model = measurement.width
    tested = _pushed_along(measurement, tested)
    spec.check_size(len(measurement.prompts), bool(measurement.text_metrics), len(tested))
    inputs = ControlInputs(d_model, activations, tested.vectors, tested.features, sae, rates)
    everything = tested
    for family, n in spec.controls_by_family.items():
        drawn = controls_of(family, n, inputs, spec.seed)
        everything += (
            per_candidate_controls(family, drawn, tested)
            if spec.per_candidate_controls
            else matched_controls(family, drawn, tested.sizes)
        )
    return everything


def _pushed_along(measurement: Measurement, tested: Directions) -> Directions:
    """The directions that the sweep's edit pushes along: themselves, or their orthogonal parts."""
    edit, context = measurement.spec.edit, measurement.context
    if not edit.is_push or "domains" not in edit.options.needs:
        return tested
    if context is None or context.domains is None:
        raise InputError(f"{edit.label} needs selection prompts of domains besides the two sides")
    return replace(tested, vectors=orthogonal_part(tested.vectors, context.domains))


def draw_controls(
    family: str, n: int, *, d_model: int, seed: int, vectors: VectorLike | Activations | None = None
) -> Float[Tensor, "n d_model"]:
    """Draw n controls of a family: unit vectors (float32, CPU).

    `vectors`: residual vectors at the hook, for families that need them (covariance,
    token_difference). A larger n begins with the same vectors. An exhausted family gives fewer than
    n, with a warning. Raises InputError for an unknown family, one whose inputs are missing (some
    only a sweep has), and one that yields no, zero or non-finite directions.
    """
    n, d_model, seed = counted("n", n), counted("d_model", d_model), whole_seed(seed)
    if isinstance(vectors, Activations) and vectors.d_model != d_model:
        raise InputError(f"vectors should have width d_model = {d_model}, not {vectors.d_model}")
    if vectors is not None and not isinstance(vectors, Activations):
        vectors = as_vectors("vectors", vectors, d_model, torch.float64)
    return controls_of(family, n, ControlInputs(d_model, vectors), seed)


def controls_of(family: str, n: int, inputs: ControlInputs, seed: int) -> Vectors:
    """`draw_controls` for families that may need any input."""
    if family not in FAMILIES and not is_custom(family):
        raise InputError(f"unknown control family {family!r}; {or_known(family, FAMILIES)}")
    draw = FAMILIES[family] if family in FAMILIES else imported(family, "family of controls")
    if n <= 0:
        raise InputError(f"the number of controls must be positive, not {n}")
    check_memory(f"{n:,} {family} controls", 16 * n * inputs.d_model, "draw fewer")  # float64 twice
    blocks = [torch.empty(0, inputs.d_model, dtype=torch.float64)]
    for block in draw(inputs, torch.Generator().manual_seed(seed)):
        is_empty = isinstance(block, Tensor) and not len(block)
        blocks += [] if is_empty else [as_vectors(family, block, inputs.d_model, torch.float64)]
        if sum(map(len, blocks)) >= n:
            break
    drawn = torch.cat(blocks)[:n]
    norms = drawn.norm(dim=1, keepdim=True)
    if not len(drawn) or not bool((norms.isfinite() & (norms > 0)).all()):
        what = "directions that are zero or not finite" if len(drawn) else "no direction"
        raise InputError(f"{family} yields {what}: fix the function, or choose another family")
    if len(drawn) < n:
        say(f"only {len(drawn)} of {n} {family} controls exist")
    return (drawn / norms).float()


def isotropic(inputs: ControlInputs, generator: torch.Generator) -> Iterator[Tensor]:
    """Every direction is equally likely."""
    while True:
        yield torch.randn(BLOCK, inputs.d_model, generator=generator, dtype=torch.float64)


def covariance(inputs: ControlInputs, generator: torch.Generator) -> Iterator[Tensor]:
    """N(0, Σ) with Σ the covariance of the vectors, by the symmetric root of Σ.

    That root is unique and continuous in Σ, so the draw does not depend on signs of eigenvectors
    or on rounding; eigenvalues of 0 (fewer vectors than dimensions) are harmless.
    """
    values, basis = torch.linalg.eigh(covariance_of(_residuals(inputs, "covariance")))
    root = (basis * values.clamp(min=0).sqrt()) @ basis.T
    for block in isotropic(inputs, generator):
        yield block @ root


def feature(inputs: ControlInputs, generator: torch.Generator) -> Iterator[Tensor]:
    """W_dec rows of other features that fire about as often as the candidates.

    Picks, for each candidate in turn, the unused feature nearest in log firing rate; the generator
    breaks ties. Ends when every live feature is used.
    """
    live, log_rate, targets = _other_features(inputs, generator)
    if not len(live):
        raise InputError("no other feature fires on the cached activations: cache more prompts")
    assert inputs.sae is not None
    for target in itertools.islice(itertools.cycle(targets), len(live)):
        nearest = int(np.abs(log_rate - target).argmin())
        log_rate[nearest] = np.inf
        yield inputs.sae.W_dec[[live[nearest]]].detach().double().cpu()


def permuted(inputs: ControlInputs, generator: torch.Generator) -> Iterator[Tensor]:
    """The directions under test in turn, each with its coordinates shuffled."""
    if inputs.tested is None or not len(inputs.tested):
        raise InputError("permuted controls need directions under test: draw them in a sweep")
    for direction in itertools.cycle(inputs.tested.double().cpu()):
        yield direction[torch.randperm(len(direction), generator=generator)][None]


def token_difference(inputs: ControlInputs, generator: torch.Generator) -> Iterator[Tensor]:
    """x_a − x_b of two random cached tokens: differences that occur in the model.

    Cached activations pair different prompts and token ids, if there are several. Pairs that are
    equal up to rounding are dropped.
    """
    vectors, idle = _residuals(inputs, "token_difference"), 0
    labels = _labels(vectors)
    while idle < TRIES:
        pairs = torch.randint(len(vectors), (BLOCK, 2), generator=generator)
        for label in labels:
            pairs = pairs[label[pairs[:, 0]] != label[pairs[:, 1]]]
        found = _differences(vectors, pairs)
        idle = 0 if len(found) else idle + 1
        yield found
    raise InputError("token_difference controls need tokens that differ: cache more prompts")


def _residuals(inputs: ControlInputs, family: str) -> Activations | Tensor:
    vectors = inputs.vectors
    if vectors is None or len(vectors) < 2:
        raise InputError(
            f"{family} controls need at least two activations: "
            "pass activations, or choose isotropic controls"
        )
    width = vectors.d_model if isinstance(vectors, Activations) else vectors.shape[1]
    if width != inputs.d_model:
        raise InputError(
            f"vectors for {family} controls have width {width}, not d_model = {inputs.d_model}: "
            "take them at the steered hook"
        )
    return vectors


def covariance_of(vectors: Activations | Tensor) -> Float[Tensor, "d_model d_model"]:
    """The sample covariance in float64, summed over chunks to bound memory."""

    def chunks() -> Iterator[Tensor]:
        parts = vectors.chunks() if isinstance(vectors, Activations) else vectors.split(CHUNK)
        return (part.detach().cpu().double() for part in parts)

    mean = sum(chunk.sum(0) for chunk in chunks()) / len(vectors)
    assert isinstance(mean, Tensor)
    if not bool(mean.isfinite().all()):
        raise InputError("the vectors for covariance controls are not all finite: drop NaN and inf")
    total = mean.new_zeros(len(mean), len(mean))
    for chunk in chunks():
        centred = chunk - mean
        total += centred.T @ centred
    if not bool(total.diagonal().sum() > 1e-12 * len(vectors) * mean.square().sum()):
        raise InputError("the vectors for covariance controls are all equal: pass more tokens")
    return total / (len(vectors) - 1)


def _other_features(
    inputs: ControlInputs, generator: torch.Generator
) -> tuple[list[int], np.ndarray, list[float]]:
    """Live features not under test, in random order; log firing rates of these and the candidates.

    A candidate that never fires gets the rate of the rarest live feature.
    """
    tested = [f for f in inputs.features if f is not None]
    if (
        inputs.sae is None
        or inputs.rates is None
        or not tested
        or len(tested) < len(inputs.features)
    ):
        raise InputError(
            "feature controls need features under test and the firing rates of their SAE: sweep "
            "features of an SAE, or choose other controls"
        )
    norms = inputs.sae.W_dec.detach().float().norm(dim=-1).cpu()
    fires = (inputs.rates > 0) & (norms > 0) & norms.isfinite()
    rates = inputs.rates.double().numpy()
    rarest = rates[rates > 0].min(initial=1.0)
    targets = [float(np.log(max(rates[f], rarest))) for f in tested]
    fires[tested] = False
    live = fires.nonzero().flatten()
    live = live[torch.randperm(len(live), generator=generator)]
    return live.tolist(), np.log(rates[live.numpy()]), targets


def _labels(vectors: Activations | Tensor) -> list[Int[Tensor, " tokens"]]:
    """Labels in which a pair's tokens must differ: prompt and token id, if there are several."""
    if not isinstance(vectors, Activations):
        return []
    columns = (pd.factorize(vectors.index[name])[0] for name in ("prompt_id", "token"))
    return [torch.from_numpy(codes) for codes in columns if codes.max() > 0]


def _differences(
    vectors: Activations | Tensor, pairs: Int[Tensor, "pairs two"]
) -> Float[Tensor, "n d_model"]:
    """x_a − x_b of the pairs whose vectors differ, float64 on the CPU."""
    rows = pairs.flatten()
    taken = vectors.take(rows) if isinstance(vectors, Activations) else vectors[rows]
    a, b = taken.detach().cpu().double().unflatten(0, (-1, 2)).unbind(1)
    sizes = torch.maximum(a.norm(dim=-1), b.norm(dim=-1))
    return (a - b)[(a - b).norm(dim=-1) > SAME * sizes]


FAMILIES: dict[str, ControlFamily] = {
    "covariance": covariance,
    "isotropic": isotropic,
    "feature": feature,
    "permuted": permuted,
    "token_difference": token_difference,
}


def needs_activations(family: str) -> bool:
    """Whether a family reads cached activations; a custom one may."""
    return is_custom(family) or "activations" in SOURCES[family].needs
