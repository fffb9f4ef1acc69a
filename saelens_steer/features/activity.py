"""One pass over cached activations: how often, how strongly and where features fire."""

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
from saelens_steer.features.scale import feature_activations
from saelens_steer.sae import rows_at_once

BINS = 64
"""Bins of a histogram; 33 to 64 are used."""
NOWHERE = torch.iinfo(torch.int64).max


@dataclass(frozen=True)
class Histogram:
    """Counts of positive activations in the bins [edges[i], edges[i + 1])."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class TokenOrigins:
    """The prompt and domain of each cached token, numbered by first appearance."""

    prompts: tuple[str, ...]
    prompt_of: Int[Tensor, " n"]
    domains: tuple[str, ...]
    domain_of: Int[Tensor, " n"]

    @classmethod
    def of(cls, activations: Activations) -> TokenOrigins:
        """Read prompts and domains from the index of the activations."""
        index = activations.index
        codes, names = zip(*(pd.factorize(index[c]) for c in ("prompt_id", "domain")), strict=True)
        prompts, domains = (tuple(map(str, own)) for own in names)
        prompt_of, domain_of = map(torch.from_numpy, codes)
        return cls(prompts, prompt_of, domains, domain_of)

    @cached_property
    def order(self) -> tuple[Int[Tensor, " n"], Int[Tensor, " prompt"]]:
        """All rows sorted by prompt, and the cumulative row count at each prompt's end."""
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
class FeatureActivity:
    """Firing statistics of some features on the cached tokens; firing means activation > 0."""

    features: tuple[int, ...]
    origins: TokenOrigins
    shown: Bool[Tensor, " n"]
    """The cached tokens that `peak` and `row` may refer to."""
    fired: Int[Tensor, " d_sae"]
    """Number of tokens on which each feature of the SAE fires."""
    fired_in: Int[Tensor, "domain feature"]
    """Number of tokens per domain on which each selected feature fires."""
    largest: Float[Tensor, "prompt feature"]
    """The largest activation in each prompt; 0 if the feature does not fire."""
    peak: Float[Tensor, "prompt feature"]
    """The largest activation among shown tokens; 0 if none fires."""
    row: Int[Tensor, "prompt feature"]
    """The first row with the peak activation; -1 if none."""
    histograms: tuple[Histogram, ...]

    @property
    def rates(self) -> Float[Tensor, "feature domain"]:
        """Share of each domain's tokens on which each feature fires, in float64."""
        tokens = torch.bincount(self.origins.domain_of, minlength=len(self.origins.domains))
        return (self.fired_in.double() / tokens[:, None]).T

    def shown_rows(self, prompt: int) -> Int[Tensor, " m"]:
        """The rows of a prompt's shown tokens, in order."""
        rows = self.origins.rows_of(prompt)
        return rows[self.shown[rows]]


@torch.no_grad()
def feature_activity(
    sae: SAE[Any], activations: Activations, features: Sequence[int], shown: Bool[Tensor, " n"]
) -> FeatureActivity:
    """Firing statistics of the features from one pass over the cached tokens.

    Memory grows with tokens and with prompts × features, but not with tokens × features.
    """
    origins, columns = TokenOrigins.of(activations), list(features)
    n, shape = len(columns), (len(origins.prompts), len(columns))
    fired = torch.zeros(sae.cfg.d_sae, dtype=torch.int64)
    fired_in = torch.zeros(len(origins.domains), n, dtype=torch.int64)
    overall, among_shown = _LargestPerPrompt(*shape), _LargestPerPrompt(*shape)
    histograms, start = [_GrowingHistogram() for _ in columns], 0
    for x in activations.chunks(rows_at_once(sae)):
        z, rows = feature_activations(sae, x), torch.arange(start, start + len(x))
        start += len(x)
        fired += (z > 0).sum(0)
        z, prompts = z[:, columns], origins.prompt_of[rows]
        fired_in.index_add_(0, origins.domain_of[rows], (z > 0).long())
        overall.add(z, prompts, rows)
        kept = shown[rows]
        among_shown.add(z[kept], prompts[kept], rows[kept])
        for histogram, own in zip(histograms, z.T, strict=True):
            histogram.add(own[own > 0])
    return FeatureActivity(
        tuple(columns),
        origins,
        shown,
        fired,
        fired_in,
        overall.value,
        among_shown.value,
        among_shown.row,
        tuple(histogram.result() for histogram in histograms),
    )


class _LargestPerPrompt:
    """The largest activation of each prompt so far, and the first row with it."""

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


class _GrowingHistogram:
    """A histogram whose range doubles, merging pairs of bins, when a larger activation arrives.

    The range is a power of two, so the counts do not depend on the order of activations.
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

    def result(self) -> Histogram:
        used = np.flatnonzero(self.counts)
        if not len(used):
            return Histogram((), ())
        n = int(used[-1]) + 1
        edges = tuple(self.width * i for i in range(n + 1))
        return Histogram(edges, tuple(map(int, self.counts[:n])))
