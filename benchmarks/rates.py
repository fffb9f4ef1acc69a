"""Shares with their 95 % intervals."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binomtest

RESAMPLES = 10_000


def rate(hits: ArrayLike) -> dict[str, float]:
    """How many of some yes or no answers are yes, with Clopper and Pearson's interval."""
    count, n = int(np.sum(hits)), np.size(hits)
    ends = binomtest(count, n).proportion_ci(0.95, method="exact")
    return {"count": count, **_ends(count / n, ends.low, ends.high)}


def mean_share(shares: ArrayLike) -> dict[str, float]:
    """The mean of one share per resample, with a percentile bootstrap interval over resamples.

    The candidates of a resample meet the same controls, so they are not counted one by one.
    """
    found = np.asarray(shares)
    drawn = np.random.default_rng(0).integers(len(found), size=(RESAMPLES, len(found)))
    low, high = np.quantile(found[drawn].mean(1), (0.025, 0.975))
    return _ends(found.mean(), low, high)


def _ends(share: Any, low: Any, high: Any) -> dict[str, float]:
    found = {"share": share, "low": low, "high": high}
    return {name: round(float(value), 4) for name, value in found.items()}
