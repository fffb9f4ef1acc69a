"""The interference table: what each push does to each metric, one row per direction × α."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from saelens_steer.evidence.grid import Grid, check_metrics
from saelens_steer.evidence.statistics import (
    bootstrap_interval,
    bootstrap_weights,
    mean_difference,
    prompt_mean,
)


def summarise(
    rows: pd.DataFrame, metrics: Sequence[str], seed: int = 0, n_resamples: int = 1000
) -> pd.DataFrame:
    """direction, family, feature, alpha, alpha_unit, n (prompts), and for each metric M: M, its
    mean; M_delta, that minus the mean at α = 0; M_ci_low and M_ci_high, the 95 % bootstrap
    interval of M_delta over prompts. matched_norm and matched_to are kept where given.

    Samples of one prompt are averaged first. Rows: directions as they first appear, α ascending.
    Raises InputError for a table that does not fit.
    """
    check_metrics(rows, metrics)
    grid = Grid.of(rows)
    counts = grid.prompt_counts()
    direction, alpha = np.nonzero(counts)
    table = grid.directions.iloc[direction].reset_index(drop=True)
    table["alpha"] = grid.alphas[alpha]
    table["n"] = counts[direction, alpha]
    about = [
        "direction",
        "family",
        "feature",
        "alpha",
        "alpha_unit",
        "n",
        "matched_norm",
        "matched_to",
    ]
    weights = bootstrap_weights(grid.n_prompts, n_resamples, seed)
    columns = {
        name: values[direction, alpha]
        for metric in metrics
        for name, values in _columns(grid, rows, metric, weights).items()
    }
    return pd.concat([table[[c for c in about if c in table]], pd.DataFrame(columns)], axis=1)


def _columns(
    grid: Grid, rows: pd.DataFrame, metric: str, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """The four columns of one metric, each [directions, alphas]."""
    cube = grid.cube(rows, metric)
    means = prompt_mean(cube)
    low, high = bootstrap_interval(cube, grid.zero, weights)
    return {
        metric: means,
        f"{metric}_delta": mean_difference(means, grid.zero),
        f"{metric}_ci_low": low,
        f"{metric}_ci_high": high,
    }
