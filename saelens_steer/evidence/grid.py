"""A sweep's rows as arrays, and their summary by direction and α."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from saelens_steer.errors import InputError, or_known
from saelens_steer.evidence.statistics import (
    bootstrap_interval,
    bootstrap_weights,
    mean_difference,
    prompt_mean,
    ratio,
)

_NEEDED = ("direction", "family", "feature", "alpha", "alpha_unit", "prompt_id")
_ONE_SWEEP = ("edit", "hook_name", "positions", "alpha_unit")
DOSE = "receipt_rel_norm"
"""Mean ‖Δx‖/‖x‖ over the steered positions of a row."""
KL = "kl"
"""The metric that no push can lower, so that only the size of its rise is informative."""
ROW_COLUMNS = tuple(dict.fromkeys((*_NEEDED, "matched_norm", "matched_to", DOSE, *_ONE_SWEEP)))
"""The columns that this package reads, besides the metrics."""


@dataclass(frozen=True)
class RowGrid:
    """Places of a table's rows in an array [directions, alphas, prompts]."""

    directions: pd.DataFrame
    """One row per direction, in order of appearance, identified by direction and matched_norm (if
    present), since a control may be measured at several norms. matched_to (if present) is the only
    candidate that a control is compared with."""
    alphas: Float[np.ndarray, " alphas"]
    """Ascending, 0 included."""
    n_prompts: int
    cell: Int[np.ndarray, " rows"]
    """Flat index into [directions, alphas, prompts]; prompts are in alphabetical order."""

    @classmethod
    def of(cls, rows: pd.DataFrame) -> RowGrid:
        """Raises InputError for missing columns, mixed sweeps, or a direction without α = 0."""
        _check(rows)
        keys = [key for key in ("direction", "matched_norm") if key in rows]
        direction = rows.groupby(keys, sort=False, dropna=False, observed=True).ngroup().to_numpy()
        alphas, alpha = np.unique(rows["alpha"].to_numpy(dtype=float), return_inverse=True)
        prompt, prompts = pd.factorize(np.asarray(rows["prompt_id"]), sort=True)
        first = np.unique(direction, return_index=True)[1]
        about = [*keys, "family", "feature", "alpha_unit"]
        about += ["matched_to"] if "matched_to" in rows else []
        directions = _plain(rows[about].iloc[first].reset_index(drop=True))
        cell = (direction * len(alphas) + alpha) * len(prompts) + prompt
        grid = cls(directions, alphas, len(prompts), cell)
        missing = grid.prompt_counts()[:, alphas == 0].sum(1) == 0
        if missing.any():
            name = directions["direction"][int(missing.argmax())]
            raise InputError(f"{name} has no rows at alpha = 0: measure the unsteered model too")
        return grid

    @property
    def shape(self) -> tuple[int, int, int]:
        return len(self.directions), len(self.alphas), self.n_prompts

    @property
    def zero(self) -> int:
        """The index of α = 0."""
        return int(np.flatnonzero(self.alphas == 0)[0])

    def prompt_counts(self) -> Int[np.ndarray, "directions alphas"]:
        """Number of prompts with at least one row."""
        return (self._sum(np.ones(len(self.cell))) > 0).sum(-1)

    def cube(
        self, rows: pd.DataFrame, column: str
    ) -> Float[np.ndarray, "directions alphas prompts"]:
        """A column as an array: the mean over a cell's finite samples, NaN if there are none."""
        numbers = rows[column].to_numpy(dtype=float, na_value=np.nan)
        measured = np.isfinite(numbers)
        total = self._sum(np.where(measured, numbers, 0.0))
        count = self._sum(measured.astype(float))
        return ratio(total, count)

    def _sum(self, weights: np.ndarray) -> np.ndarray:
        size = int(np.prod(self.shape))
        return np.bincount(self.cell, weights, minlength=size).reshape(self.shape)


def _plain(table: pd.DataFrame) -> pd.DataFrame:
    """Categorical columns as plain values."""
    kinds = {
        name: kind.categories.dtype
        for name, kind in table.dtypes.items()
        if isinstance(kind, pd.CategoricalDtype)
    }
    return table.astype(kinds)


def check_metrics(rows: pd.DataFrame, metrics: Sequence[str]) -> None:
    """Raise InputError unless each metric is a numeric column."""
    for metric in metrics:
        if metric not in rows:
            numeric = map(str, rows.select_dtypes("number").columns)
            raise InputError(f"the table has no metric {metric!r}; {or_known(metric, numeric)}")
        if not pd.api.types.is_numeric_dtype(rows[metric]):
            raise InputError(f"metric {metric!r} must be numeric, not {rows[metric].dtype}")


def _check(rows: pd.DataFrame) -> None:
    if missing := [column for column in _NEEDED if column not in rows]:
        raise InputError(f"the table has no column {missing[0]!r}")
    if rows.empty:
        raise InputError("the table has no rows: sweep at least one direction")
    for column in ("direction", "alpha", "prompt_id"):
        if rows[column].isna().to_numpy().any():
            raise InputError(f"column {column!r} has empty entries: fill them")
    for column in _ONE_SWEEP:
        kinds = sorted(map(str, set(np.asarray(rows[column])))) if column in rows else []
        if len(kinds) > 1:
            raise InputError(
                f"the table mixes values of {column} ({', '.join(kinds)}): pass one sweep at a time"
            )


PUSH = "add"
"""The edit of a table that has no column `edit`."""
SUMMARY_COLUMNS = [
    *("direction", "family", "feature", "alpha", "alpha_unit", "n"),
    *("matched_norm", "matched_to", "edit"),
]


def summarise(
    rows: pd.DataFrame, metrics: Sequence[str], seed: int = 0, n_resamples: int = 1000
) -> pd.DataFrame:
    """One row per direction × α, directions in order of appearance and α ascending.

    Columns: direction, family, feature, alpha, alpha_unit, n (prompts), matched_norm and matched_to
    if present, the edit unless it is plain `add`, and for each metric M: its mean M, M_delta (minus
    the mean at α = 0), M_ci_low and M_ci_high (95 % bootstrap interval of M_delta over prompts).
    Samples of a prompt are averaged first. Raises InputError for a malformed table.
    """
    check_metrics(rows, metrics)
    grid = RowGrid.of(rows)
    counts = grid.prompt_counts()
    direction, alpha = np.nonzero(counts)
    table = grid.directions.iloc[direction].reset_index(drop=True)
    table["alpha"] = grid.alphas[alpha]
    table["n"] = counts[direction, alpha]
    if "edit" in rows and (edit := str(rows["edit"].iloc[0])) != PUSH:
        table["edit"] = edit
    weights = bootstrap_weights(grid.n_prompts, n_resamples, seed)
    columns = {}
    for metric in metrics:
        cube = grid.cube(rows, metric)
        means = prompt_mean(cube)
        low, high = bootstrap_interval(cube, grid.zero, weights)
        columns[metric] = means[direction, alpha]
        columns[f"{metric}_delta"] = mean_difference(means, grid.zero)[direction, alpha]
        columns[f"{metric}_ci_low"] = low[direction, alpha]
        columns[f"{metric}_ci_high"] = high[direction, alpha]
    about = table[[column for column in SUMMARY_COLUMNS if column in table]]
    return pd.concat([about, pd.DataFrame(columns)], axis=1)
