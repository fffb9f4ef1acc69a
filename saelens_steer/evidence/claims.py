"""Whether a direction does more than random directions of its size: one row per claim."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from saelens_steer.errors import InputError
from saelens_steer.evidence import statistics
from saelens_steer.evidence.grid import RowGrid, check_metrics
from saelens_steer.steering import CANDIDATE

LEVEL = 0.05
PASSES = "more than random"
FAILS = "no more than random"
UNMEASURED = "not measured"
_SAME_NORM = 1e-6


def claims(
    rows: pd.DataFrame,
    metrics: Sequence[str],
    *,
    controls: str | None = None,
    seed: int = 0,
    n_resamples: int = 1000,
) -> pd.DataFrame:
    """direction, feature, metric, effect (Δ at the α where |Δ| is largest), alpha, ci_low, ci_high,
    T, control_quantile (95 %), n_controls, p_value, q_value, verdict, sign_rate, separation,
    controls (the family compared with).

    Candidates are compared with the controls of their own matched_norm and, where controls are one
    candidate's (matched_to), with their own; with all where the table has no such columns. q:
    Benjamini–Hochberg over the candidates of one metric. `controls` names the family where the
    table has several. The interval is that of the chosen α, not corrected for the choice: p and q
    are. Raises InputError for a table that does not fit.
    """
    check_metrics(rows, metrics)
    grid = RowGrid.of(rows)
    peers = Peers.of(grid.directions, controls)
    weights = statistics.bootstrap_weights(grid.n_prompts, n_resamples, seed)
    tables = [_claims_of(grid, peers, rows, metric, weights) for metric in metrics]
    table = pd.concat(tables) if tables else pd.DataFrame()
    return table.sort_index(kind="stable").reset_index(drop=True)


class Peers:
    """The candidates of a table, the controls of one family, and who is compared with whom."""

    def __init__(
        self,
        candidates: Int[np.ndarray, " candidates"],
        controls: Int[np.ndarray, " controls"],
        comparable: Bool[np.ndarray, "candidates controls"],
        family: str | None,
    ) -> None:
        self.candidates, self.controls = candidates, controls
        self.comparable, self.family = comparable, family

    @classmethod
    def of(cls, directions: pd.DataFrame, family: str | None = None) -> Peers:
        """Raises InputError where the family is missing or not the only one and none is named."""
        families = directions["family"].to_numpy(dtype=object)
        family = _family(families_of(directions), family)
        candidates = np.flatnonzero(families == CANDIDATE)
        controls = np.flatnonzero(families == family)
        comparable = _same_norm(directions, candidates, controls)
        comparable &= _shared_or_own(directions, candidates, controls)
        return cls(candidates, controls, comparable, family)

    def about(self, grid: RowGrid) -> pd.DataFrame:
        """direction and feature of each candidate."""
        named = grid.directions[["direction", "feature"]]
        return named.iloc[self.candidates].reset_index(drop=True)

    def groups(
        self, delta: Float[np.ndarray, "directions alphas"]
    ) -> Iterator[tuple[Int[np.ndarray, " group"], Float[np.ndarray, "peers alphas"]]]:
        """Candidates (places among the candidates) that share controls, and those controls' Δ.

        A control counts if it was measured at every α at which any candidate was.
        """
        grid = ~np.isnan(delta[self.candidates]).all(0)
        measured = ~np.isnan(delta[self.controls][:, grid]).any(1)
        sharing: dict[bytes, list[int]] = {}
        for place, row in enumerate(self.comparable & measured & grid.any()):
            sharing.setdefault(row.tobytes(), []).append(place)
        for row, group in sharing.items():
            yield np.array(group), delta[self.controls[np.frombuffer(row, dtype=bool)]][:, grid]


def least_controls(tests: int) -> int:
    """K + 1 > 20·m: with fewer controls even the best possible q misses 5 %."""
    return 20 * tests


def steered_only(
    delta: Float[np.ndarray, "directions alphas"], zero: int
) -> Float[np.ndarray, "directions alphas"]:
    """Δ with the α = 0 column taken for not measured: it is 0 for all and says nothing."""
    steered = delta.copy()
    steered[:, zero] = np.nan
    return steered


def deltas_of(
    grid: RowGrid, cube: Float[np.ndarray, "directions alphas prompts"]
) -> Float[np.ndarray, "directions alphas"]:
    """Mean over prompts at each α minus that at 0, of every direction (see `steered_only`)."""
    delta = statistics.mean_difference(statistics.prompt_mean(cube), grid.zero)
    return steered_only(delta, grid.zero)


def families_of(directions: pd.DataFrame) -> list[str]:
    """The families of controls, as they first appear."""
    found = pd.unique(directions["family"].to_numpy(dtype=object))
    return [str(family) for family in found if family != CANDIDATE]


def matched_by(table: pd.DataFrame) -> str:
    """What the controls of a table have in common with the candidates: `size` or `KL`.

    That is what α counts, unless candidates have controls of their own: then it is the other.
    """
    own = "matched_to" in table and bool(table["matched_to"].notna().to_numpy().any())
    in_nats = "alpha_unit" in table and set(table["alpha_unit"]) == {"kl"}
    return "KL" if in_nats != own else "size"


def _family(present: list[str], wanted: str | None) -> str | None:
    if wanted is not None and wanted not in present:
        raise InputError(
            f"the table has no {wanted!r} controls, only {', '.join(present) or 'none'}"
        )
    if wanted is None and len(present) > 1:
        raise InputError(f"the table has controls of {', '.join(present)}: name one with controls=")
    return wanted or (present[0] if present else None)


def _same_norm(
    directions: pd.DataFrame, candidates: np.ndarray, controls: np.ndarray
) -> Bool[np.ndarray, "candidates controls"]:
    if "matched_norm" not in directions:
        return np.ones((len(candidates), len(controls)), dtype=bool)
    norm = directions["matched_norm"].to_numpy(dtype=float, na_value=np.nan)
    ours, theirs = norm[candidates][:, None], norm[controls][None]
    return np.isclose(theirs, ours, rtol=_SAME_NORM, atol=0, equal_nan=True)


def _shared_or_own(
    directions: pd.DataFrame, candidates: np.ndarray, controls: np.ndarray
) -> Bool[np.ndarray, "candidates controls"]:
    """Whether a control is the candidate's own, or everybody's."""
    if "matched_to" not in directions:
        return np.ones((len(candidates), len(controls)), dtype=bool)
    whose = directions["matched_to"].astype(object).iloc[controls]
    ours = directions["direction"].to_numpy(dtype=object)[candidates][:, None]
    return whose.isna().to_numpy()[None] | (whose.fillna("").to_numpy()[None] == ours)


def _claims_of(
    grid: RowGrid, peers: Peers, rows: pd.DataFrame, metric: str, weights: np.ndarray
) -> pd.DataFrame:
    """The claims of one metric, indexed by the candidate's place in the table."""
    cube = grid.cube(rows, metric)
    delta = deltas_of(grid, cube)
    effects = _effects(grid, cube[peers.candidates], delta[peers.candidates], weights)
    table = effects.join(judged(peers, delta, effects["T"].to_numpy()))
    about = peers.about(grid).assign(metric=metric, controls=peers.family)
    return pd.DataFrame(about.join(table)[_COLUMNS])


_COLUMNS = [
    *("direction", "feature", "metric", "effect", "alpha", "ci_low", "ci_high", "T"),
    *("control_quantile", "n_controls", "p_value", "q_value", "verdict"),
    *("sign_rate", "separation", "controls"),
]


def _effects(
    grid: RowGrid, cube: np.ndarray, delta: np.ndarray, weights: np.ndarray
) -> pd.DataFrame:
    """What each candidate does at the α of its largest |Δ|."""
    best = np.where(np.isnan(delta), -1.0, np.abs(delta)).argmax(1)
    at = (np.arange(len(delta)), best)
    low, high = statistics.bootstrap_interval(cube, grid.zero, weights)
    with np.errstate(invalid="ignore"):
        own = cube[at] - cube[:, grid.zero]
    effect = delta[at]
    return pd.DataFrame(
        {
            "effect": effect,
            "alpha": np.where(np.isnan(effect), np.nan, grid.alphas[best]),
            "ci_low": np.where(np.isnan(effect), np.nan, low[at]),
            "ci_high": np.where(np.isnan(effect), np.nan, high[at]),
            "T": np.abs(effect),
            "sign_rate": statistics.sign_rate(own, effect),
        }
    )


def judged(
    peers: Peers,
    delta: Float[np.ndarray, "directions alphas"],
    statistic: Float[np.ndarray, " candidates"],
) -> pd.DataFrame:
    """Each candidate, with its T, beside the controls it is compared with: control_quantile,
    n_controls, p_value, separation, q_value and verdict."""
    table = _against(peers, delta, statistic)
    table["q_value"] = statistics.false_discovery(table["p_value"].to_numpy())
    table["verdict"] = _verdicts(statistic, table)
    return table


def _against(peers: Peers, delta: np.ndarray, statistic: np.ndarray) -> pd.DataFrame:
    names = ["control_quantile", "n_controls", "p_value", "separation"]
    table = pd.DataFrame(np.nan, index=range(len(statistic)), columns=names)
    measured = ~np.isnan(delta[peers.candidates]).all(0)
    for group, controls in peers.groups(delta):
        largest = statistics.max_statistic(controls)
        own = delta[peers.candidates[group]][:, measured]
        table.loc[group, "control_quantile"] = (
            np.quantile(largest, 0.95) if len(largest) else np.nan
        )
        table.loc[group, "n_controls"] = len(largest)
        table.loc[group, "p_value"] = statistics.p_values(statistic[group], largest)
        table.loc[group, "separation"] = statistics.separation_score(own, controls)
    return table.astype({"n_controls": int})


def _verdicts(statistic: np.ndarray, table: pd.DataFrame) -> list[str]:
    tests = int((~np.isnan(statistic)).sum())
    return [
        UNMEASURED
        if np.isnan(t)
        else f"not testable with {k} controls"
        if k < least_controls(tests)
        else PASSES
        if q < LEVEL
        else FAILS
        for t, k, q in zip(statistic, table["n_controls"], table["q_value"], strict=True)
    ]


COLUMNS = [
    *("direction", "feature", "metric", "controls", "n_controls", "control_quantile"),
    *("p_value", "q_value", "verdict"),
]


def by_family(rows: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """direction, feature, metric, controls, n_controls, control_quantile, p_value, q_value and
    verdict, as in `claims`: one row per candidate × metric × family, these in the table's order.

    Empty where the table has no controls. Raises InputError for a table that does not fit.
    """
    check_metrics(rows, metrics)
    grid = RowGrid.of(rows)
    peers = [Peers.of(grid.directions, family) for family in families_of(grid.directions)]
    tables = [
        _against_family(grid, own, delta, metric)
        for metric in metrics
        for delta in ([deltas_of(grid, grid.cube(rows, metric))] if peers else [])
        for own in peers
    ]
    table = pd.concat(tables) if tables else pd.DataFrame(columns=COLUMNS)
    return table.sort_index(kind="stable").reset_index(drop=True)


def _against_family(grid: RowGrid, peers: Peers, delta: np.ndarray, metric: str) -> pd.DataFrame:
    """One metric against one family, indexed by the candidate's place in the table."""
    statistic = statistics.max_statistic(delta[peers.candidates])
    about = peers.about(grid).assign(metric=metric, controls=peers.family)
    return pd.DataFrame(about.join(judged(peers, delta, statistic))[COLUMNS])
