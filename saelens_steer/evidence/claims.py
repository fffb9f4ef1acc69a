"""Claims: does a direction do more than random directions of its norm?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from saelens_steer.config import check_memory, counted, whole_seed
from saelens_steer.evidence import statistics
from saelens_steer.evidence.grid import RowGrid, check_metrics
from saelens_steer.evidence.matching import Matching, families_of

LEVEL = 0.05
PASSES = "more than random"
FAILS = "no more than random"
UNMEASURED = "not measured"

COLUMNS = [
    *("direction", "feature", "metric", "effect", "alpha", "ci_low", "ci_high", "T"),
    *("control_quantile", "n_controls", "p_value", "q_value", "verdict"),
    *("sign_rate", "separation", "controls", "n_undefined"),
]
FAMILY_COLUMNS = [
    *("direction", "feature", "metric", "controls", "n_controls", "control_quantile"),
    *("p_value", "q_value", "verdict"),
]


def claims(
    rows: pd.DataFrame,
    metrics: Sequence[str],
    *,
    controls: str | None = None,
    seed: int = 0,
    n_resamples: int = 1000,
) -> pd.DataFrame:
    """Test each candidate on each metric against its controls, one row per claim.

    Columns: direction, feature, metric, effect (Δ at the α with the largest |Δ|), alpha, ci_low,
    ci_high, T, control_quantile (95 %), n_controls, p_value, q_value, verdict, sign_rate,
    separation, controls (their family), n_undefined (prompts × α left out, as the metric is
    undefined or infinite there). `controls` names the family if the table has several; `Matching`
    assigns controls to candidates. q: Benjamini–Hochberg over the candidates of one
    metric. The interval ignores that α was chosen; p and q account for it. Raises InputError for a
    malformed table.
    """
    check_metrics(rows, metrics)
    seed, n_resamples = whole_seed(seed), counted("n_resamples", n_resamples)
    grid = RowGrid.of(rows)
    matching = Matching.of(grid.directions, controls)
    check_memory(
        f"{n_resamples:,} resamples of {grid.n_prompts:,} prompts",
        8 * n_resamples * grid.n_prompts,
        "lower n_resamples",
    )
    weights = statistics.bootstrap_weights(grid.n_prompts, n_resamples, seed)
    tables = []
    for metric in metrics:
        cube = grid.cube(rows, metric)
        delta = deltas_of(grid, cube)
        tested = matching.candidates
        effects = _effects(grid, cube[tested], delta[tested], weights)
        judged = effects.join(_judged(matching, delta, effects["T"].to_numpy()))
        missing = np.delete(np.isnan(cube), grid.zero, axis=1).sum((1, 2))
        given = np.delete(grid.prompt_counts(), grid.zero, axis=1).sum(1)
        absent = (len(grid.alphas) - 1) * grid.n_prompts - given
        judged["n_undefined"] = (missing - absent)[tested]
        about = matching.about(grid, metric)
        tables.append(about.join(judged)[COLUMNS])
    table = pd.concat(tables) if tables else pd.DataFrame()
    return table.sort_index(kind="stable").reset_index(drop=True)


def by_family(rows: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """One row per candidate × metric × family: the columns of `claims` on controls and tests.

    Empty if the table has no controls. Raises InputError for a malformed table.
    """
    check_metrics(rows, metrics)
    grid = RowGrid.of(rows)
    matchings = [Matching.of(grid.directions, family) for family in families_of(grid.directions)]
    tables = []
    for metric in metrics if matchings else ():
        delta = deltas_of(grid, grid.cube(rows, metric))
        for matching in matchings:
            statistic = statistics.max_statistic(delta[matching.candidates])
            about = matching.about(grid, metric)
            tables.append(about.join(_judged(matching, delta, statistic))[FAMILY_COLUMNS])
    table = pd.concat(tables) if tables else pd.DataFrame(columns=FAMILY_COLUMNS)
    return table.sort_index(kind="stable").reset_index(drop=True)


def deltas_of(
    grid: RowGrid, cube: Float[np.ndarray, "directions alphas prompts"]
) -> Float[np.ndarray, "directions alphas"]:
    """Each direction's mean over prompts at each α minus that at 0 (see `steered_only`)."""
    delta = statistics.mean_difference(statistics.prompt_mean(cube), grid.zero)
    return steered_only(delta, grid.zero)


def steered_only(
    delta: Float[np.ndarray, "directions alphas"], zero: int
) -> Float[np.ndarray, "directions alphas"]:
    """Δ with NaN in the α = 0 column, which is 0 by definition."""
    steered = delta.copy()
    steered[:, zero] = np.nan
    return steered


def _effects(
    grid: RowGrid, cube: np.ndarray, delta: np.ndarray, weights: np.ndarray
) -> pd.DataFrame:
    """Each candidate's effect, at the α of its largest |Δ|."""
    best = np.where(np.isnan(delta), -1.0, np.abs(delta)).argmax(1)
    at = (np.arange(len(delta)), best)
    low, high = statistics.bootstrap_interval(cube, grid.zero, weights)
    with np.errstate(invalid="ignore"):
        per_prompt = cube[at] - cube[:, grid.zero]
    effect = delta[at]
    unmeasured = np.isnan(effect)
    return pd.DataFrame(
        {
            "effect": effect,
            "alpha": np.where(unmeasured, np.nan, grid.alphas[best]),
            "ci_low": np.where(unmeasured, np.nan, low[at]),
            "ci_high": np.where(unmeasured, np.nan, high[at]),
            "T": np.abs(effect),
            "sign_rate": statistics.sign_rate(per_prompt, effect),
        }
    )


def _judged(
    matching: Matching,
    delta: Float[np.ndarray, "directions alphas"],
    statistic: Float[np.ndarray, " candidates"],
) -> pd.DataFrame:
    """Each candidate's T tested against its controls: control_quantile … verdict."""
    names = ["control_quantile", "n_controls", "p_value", "separation"]
    table = pd.DataFrame(np.nan, index=range(len(statistic)), columns=names)
    measured = ~np.isnan(delta[matching.candidates]).all(0)
    for group, controls in matching.groups(delta):
        largest = statistics.max_statistic(controls)
        tested = delta[matching.candidates[group]][:, measured]
        quantile = np.quantile(largest, 0.95) if len(largest) else np.nan
        table.loc[group, "control_quantile"] = quantile
        table.loc[group, "n_controls"] = len(largest)
        table.loc[group, "p_value"] = statistics.p_values(statistic[group], largest)
        table.loc[group, "separation"] = statistics.separation_score(tested, controls)
    table = table.astype({"n_controls": int})
    table["q_value"] = statistics.false_discovery(table["p_value"].to_numpy())
    table["verdict"] = _verdicts(statistic, table)
    return table


def _verdicts(statistic: np.ndarray, table: pd.DataFrame) -> list[str]:
    tests = int((~np.isnan(statistic)).sum())
    return [
        UNMEASURED
        if np.isnan(t)
        else f"not testable with {k:,} controls"
        if k < least_controls(tests)
        else PASSES
        if q < LEVEL
        else FAILS
        for t, k, q in zip(statistic, table["n_controls"], table["q_value"], strict=True)
    ]


def least_controls(tests: int) -> int:
    """K + 1 > 20·m: with fewer controls even the smallest possible q exceeds 5 %."""
    return 20 * tests


def lacking_controls(tests: int, controls: int) -> str:
    """What claims about this many directions lack to be testable; empty if they lack nothing."""
    if controls >= (least := least_controls(tests)):
        return ""
    directions = f"{tests:,} direction" + ("" if tests == 1 else "s")
    have = controls or "none"
    return f"claims about {directions} need at least {least:,} controls but have {have}"
