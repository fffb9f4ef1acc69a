"""What features do on cached tokens, from one pass over them: how often, how much, and where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from sae_lens import SAE
from torch import Tensor

from saelens_steer.activations import Activations
from saelens_steer.features.scale import encode
from saelens_steer.sae import rows_at_once

BINS = 64
"""Bins of a histogram, of which 33 to 64 are used."""
NOWHERE = torch.iinfo(torch.int64).max


@dataclass(frozen=True)
class Histogram:
    """How many tokens have an activation above 0 in each bin [edges[i], edges[i + 1])."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Places:
    """Which prompt and domain each cached token belongs to; prompts in the order they come."""

    prompts: tuple[str, ...]
    prompt_of: Int[Tensor, " n"]
    domains: tuple[str, ...]
    domain_of: Int[Tensor, " n"]

    @classmethod
    def of(cls, activations: Activations) -> Places:
        """Those of an index."""
        index = activations.index
        codes, names = zip(*(pd.factorize(index[c]) for c in ("prompt_id", "domain")), strict=True)
        prompts, domains = (tuple(map(str, own)) for own in names)
        prompt_of, domain_of = map(torch.from_numpy, codes)
        return cls(prompts, prompt_of, domains, domain_of)

    @cached_property
    def order(self) -> tuple[Int[Tensor, " n"], Int[Tensor, " prompt"]]:
        """All rows, prompt by prompt, and how many of them end before each prompt's end."""
        rows = torch.argsort(self.prompt_of, stable=True)
        return rows, torch.bincount(self.prompt_of, minlength=len(self.prompts)).cumsum(0)

    def rows_of(self, prompt: int) -> Int[Tensor, " m"]:
        """The rows of one prompt, in order."""
        rows, ends = self.order
        return rows[int(ends[prompt - 1]) if prompt else 0 : int(ends[prompt])]

    @property
    def domain_of_prompt(self) -> Int[Tensor, " prompt"]:
        """The domain of each prompt."""
        found = torch.zeros(len(self.prompts), dtype=torch.int64)
        found[self.prompt_of] = self.domain_of
        return found


@dataclass(frozen=True)
class Responses:
    """What some features do on the cached tokens. A feature fires where its activation is > 0."""

    features: tuple[int, ...]
    places: Places
    fired: Int[Tensor, " d_sae"]
    """Tokens on which each feature of the SAE fires."""
    fired_in: Int[Tensor, "domain feature"]
    """Tokens of each domain on which the features fire."""
    largest: Float[Tensor, "prompt feature"]
    """The largest activation in each prompt, 0 where it does not fire."""
    peak: Float[Tensor, "prompt feature"]
    """The largest activation of those tokens that may be shown, 0 where there is none."""
    row: Int[Tensor, "prompt feature"]
    """Where that is: the first such row, -1 where there is none."""
    histograms: tuple[Histogram, ...]

    @property
    def rates(self) -> Float[Tensor, "feature domain"]:
        """Share of each domain's tokens on which each feature fires, float64."""
        tokens = torch.bincount(self.places.domain_of, minlength=len(self.places.domains))
        return (self.fired_in.double() / tokens[:, None]).T


@torch.no_grad()
def responses(
    sae: SAE[Any],
    activations: Activations,
    features: Sequence[int],
    shown: Bool[Tensor, " n"] | None = None,
) -> Responses:
    """One pass over the cached tokens, all features at once.

    `shown`: the only tokens that a context may be of. Memory does not grow with tokens × features:
    it takes some bytes for each token, and for each prompt × feature.
    """
    going, start = _Pass(Places.of(activations), sae.cfg.d_sae, list(features), shown), 0
    for x in activations.chunks(rows_at_once(sae)):
        going.add(encode(sae, x), torch.arange(start, start + len(x)))
        start += len(x)
    return going.result


class _Pass:
    """What is known of the tokens seen so far."""

    def __init__(
        self,
        places: Places,
        d_sae: int,
        features: list[int],
        shown: Bool[Tensor, " n"] | None,
    ) -> None:
        self.places, self.features, self.shown = places, features, shown
        shape = len(places.prompts), len(features)
        self.fired = torch.zeros(d_sae, dtype=torch.int64)
        self.fired_in = torch.zeros(len(places.domains), len(features), dtype=torch.int64)
        self.overall, self.among_shown = _Largest(*shape), _Largest(*shape)
        self.counters = [_Counter() for _ in features]

    def add(self, z: Float[Tensor, "m d_sae"], rows: Int[Tensor, " m"]) -> None:
        """Take in the activations of these rows."""
        self.fired += (z > 0).sum(0)
        z, prompts = z[:, self.features], self.places.prompt_of[rows]
        self.fired_in.index_add_(0, self.places.domain_of[rows], (z > 0).long())
        self.overall.add(z, prompts, rows)
        if self.shown is not None:
            kept = self.shown[rows]
            self.among_shown.add(z[kept], prompts[kept], rows[kept])
        for counter, own in zip(self.counters, z.T, strict=True):
            counter.add(own[own > 0])

    @property
    def result(self) -> Responses:
        best = self.overall if self.shown is None else self.among_shown
        return Responses(
            tuple(self.features),
            self.places,
            self.fired,
            self.fired_in,
            self.overall.value,
            best.value,
            best.row,
            tuple(counter.histogram for counter in self.counters),
        )


class _Largest:
    """The largest activation of each prompt so far, and the first row where it stands."""

    def __init__(self, n_prompts: int, n_features: int) -> None:
        self.value = torch.zeros(n_prompts, n_features)
        self.row = torch.full((n_prompts, n_features), -1, dtype=torch.int64)

    def add(
        self, z: Float[Tensor, "m feature"], prompts: Int[Tensor, " m"], rows: Int[Tensor, " m"]
    ) -> None:
        own, which = prompts.unique(return_inverse=True)
        place = which[:, None].expand_as(z)
        best = z.new_zeros(len(own), z.shape[1]).scatter_reduce_(0, place, z, "amax")
        here = torch.where(z == best[which], rows[:, None], NOWHERE)
        first = torch.full_like(best, NOWHERE, dtype=torch.int64)
        first.scatter_reduce_(0, place, here, "amin")
        better = best > self.value[own]
        self.value[own] = torch.where(better, best, self.value[own])
        self.row[own] = torch.where(better, first, self.row[own])


class _Counter:
    """A histogram whose top doubles when a larger activation comes; two bins then become one.

    The top is a power of two, so that all counts are exact whatever the order.
    """

    def __init__(self) -> None:
        self.exponent: int | None = None
        self.counts = np.zeros(BINS, dtype=np.int64)

    def add(self, fired: Float[Tensor, " m"]) -> None:
        if not len(fired):
            return
        exponent = int(torch.frexp(fired.max()).exponent)
        while self.exponent is not None and self.exponent < exponent:
            self.counts = np.append(self.counts.reshape(-1, 2).sum(1), np.zeros(BINS // 2, int))
            self.exponent += 1
        self.exponent = exponent if self.exponent is None else self.exponent
        bins = (fired.double() / self.width).long()
        self.counts += np.bincount(bins.numpy(), minlength=BINS)

    @property
    def width(self) -> float:
        return 2.0 ** (self.exponent or 0) / BINS

    @property
    def histogram(self) -> Histogram:
        used = np.flatnonzero(self.counts)
        if not len(used):
            return Histogram((), ())
        n = int(used[-1]) + 1
        return Histogram(
            tuple(self.width * i for i in range(n + 1)), tuple(map(int, self.counts[:n]))
        )
