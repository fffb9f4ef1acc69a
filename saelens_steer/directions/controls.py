"""Families of random directions that a steered direction is compared with.

A family is a function of `ControlInputs` and a random generator. It yields blocks of directions
[some, d_model], float64, not normalised, so that asking for more only appends to what a smaller
number gives. A family may be exhausted; most are not.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from sae_lens import SAE
from torch import Tensor

from saelens_steer.activations import Activations
from saelens_steer.errors import InputError
from saelens_steer.progress import say

CHUNK = 4096
"""Vectors read at once."""
BLOCK = 64
"""Directions drawn at once."""
SAME = 1e-3
"""Two vectors closer than this (relative) are one, up to rounding: tokens of a common beginning."""
TRIES = 10_000
"""So many blocks of pairs in a row without any two that differ, and the search ends."""


@dataclass(frozen=True)
class ControlInputs:
    """What a family may read; what a family needs and is not here is an InputError of its own."""

    d_model: int
    vectors: Float[Tensor, "tokens d_model"] | Activations | None = None
    """Residual vectors at the hook; those on disk are read piece by piece."""
    tested: Float[Tensor, "candidates d_model"] | None = None
    """The directions under test."""
    features: tuple[int | None, ...] = ()
    """The feature that each of these is of."""
    sae: SAE[Any] | None = None
    rates: Float[Tensor, " d_sae"] | None = None
    """How often each feature of the SAE fires at the hook (see `features.firing_rates`)."""


ControlFamily = Callable[[ControlInputs, torch.Generator], Iterator[Tensor]]


def isotropic(known: ControlInputs, generator: torch.Generator) -> Iterator[Tensor]:
    """Every direction is equally likely."""
    while True:
        yield _normal(known.d_model, generator)


def covariance(known: ControlInputs, generator: torch.Generator) -> Iterator[Tensor]:
    """N(0, Σ), Σ the covariance of the vectors: a standard normal times the symmetric root of Σ.

    That root is unique and continuous in Σ, so neither the sign of an eigenvector nor rounding
    in the vectors changes the draw; eigenvalues of 0 (fewer vectors than dimensions) are harmless.
    """
    root = _root(covariance_of(_residuals(known, "covariance")))
    while True:
        yield _normal(known.d_model, generator) @ root


def feature(known: ControlInputs, generator: torch.Generator) -> Iterator[Tensor]:
    """W_dec rows of other features that fire, as often as the candidates do.

    For the candidates in turn, the nearest feature in log firing rate that is none of them and was
    not taken yet; the generator decides between those that are equally near. Ends when all are.
    """
    live, log_rate, targets = _other_features(known, generator)
    if not len(live):
        raise InputError("no other feature fires on the cached activations: cache more prompts")
    assert known.sae is not None
    for target in itertools.islice(itertools.cycle(targets), len(live)):
        nearest = int(np.abs(log_rate - target).argmin())
        log_rate[nearest] = np.inf
        yield known.sae.W_dec[[live[nearest]]].detach().double().cpu()


def permuted(known: ControlInputs, generator: torch.Generator) -> Iterator[Tensor]:
    """The directions under test in turn, each with its coordinates shuffled."""
    if known.tested is None or not len(known.tested):
        raise InputError("permuted controls need the directions under test: draw them in a sweep")
    for direction in itertools.cycle(known.tested.double().cpu()):
        yield direction[torch.randperm(len(direction), generator=generator)][None]


def token_difference(known: ControlInputs, generator: torch.Generator) -> Iterator[Tensor]:
    """x_a − x_b of two random cached tokens: what the model itself tells apart.

    Where the vectors come with an index, the two are of different prompts (where there are
    several) and of different token ids (where there are several). Two that are equal up to rounding
    are no pair.
    """
    vectors, idle = _residuals(known, "token_difference"), 0
    labels = _labels(vectors)
    while idle < TRIES:
        pairs = torch.randint(len(vectors), (BLOCK, 2), generator=generator)
        for label in labels:
            pairs = pairs[label[pairs[:, 0]] != label[pairs[:, 1]]]
        found = _differences(vectors, pairs)
        idle = 0 if len(found) else idle + 1
        yield found
    raise InputError("token_difference controls need tokens that differ: cache more prompts")


def _normal(d_model: int, generator: torch.Generator) -> Tensor:
    return torch.randn(BLOCK, d_model, generator=generator, dtype=torch.float64)


def _residuals(known: ControlInputs, family: str) -> Activations | Tensor:
    vectors = known.vectors
    if vectors is None or len(vectors) < 2:
        raise InputError(
            f"{family} controls need at least two residual vectors: "
            "pass vectors, or choose isotropic controls"
        )
    width = vectors.d_model if isinstance(vectors, Activations) else vectors.shape[1]
    if width != known.d_model:
        raise InputError(
            f"the vectors for {family} controls are {width} wide, "
            f"but the residual stream is {known.d_model}: take them at the hook that is steered"
        )
    return vectors


def _chunks(vectors: Activations | Tensor) -> Iterator[Float[Tensor, "n d_model"]]:
    """The vectors in float64 on the CPU, a piece at a time."""
    pieces = vectors.chunks() if isinstance(vectors, Activations) else vectors.split(CHUNK)
    return (piece.detach().cpu().double() for piece in pieces)


def covariance_of(vectors: Activations | Tensor) -> Float[Tensor, "d_model d_model"]:
    """The sample covariance in float64, gathered in chunks to bound memory."""
    mean = sum(chunk.sum(0) for chunk in _chunks(vectors)) / len(vectors)
    assert isinstance(mean, Tensor)
    if not bool(mean.isfinite().all()):
        raise InputError("the vectors for covariance controls must be finite: drop NaN and inf")
    total = mean.new_zeros(len(mean), len(mean))
    for chunk in _chunks(vectors):
        centred = chunk - mean
        total += centred.T @ centred
    if not bool(total.diagonal().sum() > 1e-12 * len(vectors) * mean.square().sum()):
        raise InputError("the vectors for covariance controls are all equal: pass more tokens")
    return total / (len(vectors) - 1)


def _root(sigma: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    """The symmetric square root of a positive semi-definite matrix."""
    values, basis = torch.linalg.eigh(sigma)
    return (basis * values.clamp(min=0).sqrt()) @ basis.T


def _other_features(
    known: ControlInputs, generator: torch.Generator
) -> tuple[list[int], np.ndarray, list[float]]:
    """Live features that are not under test, in random order, the log of their rates, and that of
    each candidate; one that never fires here counts with the rarest that does."""
    tested = [f for f in known.features if f is not None]
    if known.sae is None or known.rates is None or not tested or len(tested) < len(known.features):
        raise InputError(
            "feature controls need features under test and how often each feature of their SAE "
            "fires: sweep features of an SAE, or choose other controls"
        )
    norms = known.sae.W_dec.detach().float().norm(dim=-1).cpu()
    fires = (known.rates > 0) & (norms > 0) & norms.isfinite()
    rates = known.rates.double().numpy()
    rarest = rates[rates > 0].min(initial=1.0)
    targets = [float(np.log(max(rates[f], rarest))) for f in tested]
    fires[tested] = False
    live = fires.nonzero().flatten()
    live = live[torch.randperm(len(live), generator=generator)]
    return live.tolist(), np.log(rates[live.numpy()]), targets


def _labels(vectors: Activations | Tensor) -> list[Int[Tensor, " tokens"]]:
    """What two tokens of a pair must not share: prompt and token id, where there are several."""
    if not isinstance(vectors, Activations):
        return []
    columns = (pd.factorize(vectors.index[name])[0] for name in ("prompt_id", "token"))
    return [torch.from_numpy(codes) for codes in columns if codes.max() > 0]


def _differences(
    vectors: Activations | Tensor, pairs: Int[Tensor, "pairs two"]
) -> Float[Tensor, "n d_model"]:
    """x_a − x_b of those pairs whose vectors differ, in float64 on the CPU."""
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
OF_ACTIVATIONS = frozenset({"covariance", "feature", "token_difference"})
"""The families that take cached activations."""


def draw_controls(
    family: str,
    n: int,
    *,
    d_model: int,
    seed: int,
    vectors: Float[Tensor, "tokens d_model"] | Activations | None = None,
) -> Float[Tensor, "n d_model"]:
    """`controls_of` for the families that need no more than residual vectors at the hook."""
    return controls_of(family, n, ControlInputs(d_model, vectors), seed)


def controls_of(family: str, n: int, known: ControlInputs, seed: int) -> Float[Tensor, "n d_model"]:
    """n unit vectors (float32, CPU) of a family; the first of many equal the few, bit for bit.

    Fewer where the family ends before, which is said on stderr. Uses a generator of its own. Raises
    InputError for an unknown family, or one that needs what is not known.
    """
    if family not in FAMILIES:
        near = difflib.get_close_matches(family, FAMILIES, n=1, cutoff=0.0)[0]
        raise InputError(f"unknown control family {family!r}; did you mean {near!r}?")
    if n <= 0:
        raise InputError(f"the number of controls must be positive, not {n}")
    drawn = _first(n, FAMILIES[family](known, torch.Generator().manual_seed(seed)))
    if len(drawn) < n:
        say(f"only {len(drawn)} of the {n} {family} controls asked for: there are no more")
    return (drawn / drawn.norm(dim=1, keepdim=True)).float()


def _first(n: int, blocks: Iterator[Tensor]) -> Tensor:
    """The first n rows of the blocks; no block is drawn that is not needed."""
    drawn, total = list[Tensor](), 0
    for block in blocks:
        drawn.append(block)
        total += len(block)
        if total >= n:
            break
    return torch.cat(drawn)[:n]
