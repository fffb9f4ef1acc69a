"""What is known of feature activations seen so far: means, rates, and what AUROC takes.

Memory does not grow with the number of tokens: up to `EXACT` activations are kept and ranked
exactly, more are counted in bins, and then the AUROC comes with the most that it can be wrong by.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from scipy.stats import rankdata
from torch import Tensor

EXACT = 1 << 27
"""So many activations of both sides are kept for an exact AUROC (half a gigabyte)."""
COLUMNS, RANKED = 1024, 1 << 23
"""Features, and activations, ranked at once: ranks take eight times as much memory."""
MANTISSA = 4
"""Bits of the mantissa that tell bins apart: a bin is a sixteenth of a power of two wide."""
SMALLEST, BINS = -16, 32 << MANTISSA
"""The first bin starts at 2^SMALLEST and holds what is smaller; the last ends at 2^16."""


class Tally:
    """Feature activations of one side, [·, d_sae], a batch at a time."""

    def __init__(self, d_sae: int, exact: bool) -> None:
        self.n = 0
        self.total = torch.zeros(d_sae, dtype=torch.float64)
        self.fired = torch.zeros(d_sae, dtype=torch.int64)
        self.highest = torch.full((d_sae,), -torch.inf)
        self.kept: list[Tensor] = []
        self.counts = None if exact else torch.zeros(d_sae * BINS, dtype=torch.int32)

    def add(self, z: Float[Tensor, "n d_sae"]) -> None:
        """Take in more activations."""
        if not len(z):
            return
        self.n += len(z)
        self.total += z.sum(0, dtype=torch.float64)
        self.fired += (z > 0).sum(0)
        self.highest = torch.maximum(self.highest, z.amax(0))
        if self.counts is None:
            self.kept.append(z)
            return
        rows, features = (z > 0).nonzero(as_tuple=True)
        place = features * BINS + bins(z[rows, features])
        self.counts.index_add_(0, place, torch.ones_like(place, dtype=torch.int32))

    def of(self, features: np.ndarray) -> np.ndarray:
        """The activations of some features, where all are kept: [n, feature]."""
        return torch.cat([z[:, features] for z in self.kept]).numpy()

    @property
    def mean(self) -> np.ndarray:
        """Mean activation, [d_sae]."""
        return (self.total / self.n).numpy()

    @property
    def rate(self) -> np.ndarray:
        """Share that fires, [d_sae]."""
        return (self.fired.double() / self.n).numpy()

    def shares(self, features: np.ndarray) -> np.ndarray:
        """Share in each bin, the one of those that do not fire first: [feature, 1 + BINS]."""
        assert self.counts is not None
        counts = self.counts.view(-1, BINS)[torch.from_numpy(features)].numpy()
        silent = self.n - counts.sum(1, keepdims=True)
        return np.concatenate([silent, counts], axis=1) / self.n


def bins(z: Float[Tensor, " n"]) -> Tensor:
    """The bin of positive activations: the exponent and first bits of the mantissa, in order."""
    top = z.view(torch.int32) >> (23 - MANTISSA)
    return (top.long() - ((127 + SMALLEST) << MANTISSA)).clamp(0, BINS - 1)


def separation(
    positive: Tally, negative: Tally, features: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """AUROC of each feature, and the most that it can be wrong by (0 where it is exact)."""
    if positive.counts is None:
        at_once = max(1, min(COLUMNS, RANKED // max(1, positive.n + negative.n)))
        areas = [
            auroc(*(tally.of(features[start : start + at_once]) for tally in (positive, negative)))
            for start in range(0, len(features), at_once)
        ]
        return np.concatenate([*areas, []]), np.zeros(len(features))
    parts = [
        binned(positive.shares(some), negative.shares(some))
        for some in np.array_split(features, max(1, -(-len(features) // COLUMNS)))
    ]
    return np.concatenate([a for a, _ in parts]), np.concatenate([e for _, e in parts])


def auroc(positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    """P(positive > negative) + ½ P(equal) for each column (Mann and Whitney's U over n·m)."""
    n, m = len(positive), len(negative)
    ranks = rankdata(np.concatenate([positive, negative]), axis=0)[:n].sum(0)
    return (ranks - n * (n + 1) / 2) / (n * m)


def binned(positive: np.ndarray, negative: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """AUROC from shares [feature, bin], pairs of one bin counted half, and its largest error.

    A pair of one bin may in truth be won or lost, so the error is at most half the share of such
    pairs; those that do not fire are truly equal.
    """
    same = positive * negative
    below = np.cumsum(negative, axis=1) - negative
    return (positive * below + same / 2).sum(1), same[:, 1:].sum(1) / 2
