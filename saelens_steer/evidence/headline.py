"""The sentence that a report leads with."""

from __future__ import annotations

import difflib
import math
from typing import Any

import pandas as pd

from saelens_steer.errors import InputError
from saelens_steer.evidence import statistics
from saelens_steer.evidence.claims import (
    LEVEL,
    PASSES,
    Peers,
    least_controls,
    matched_by,
    steered_only,
)
from saelens_steer.evidence.grid import RowGrid

UNITS = {"max_act": " × A_max", "resid_norm": " × mean ‖x‖", "kl": " nats of KL", "unit": " (unit)"}
"""What follows α in the sentence; nothing where α is a multiple of W_dec[f] itself."""
KL = "kl"
"""The metric that no push can lower: that it rises is no news, only by how much."""


def headline(claims: pd.DataFrame, summary: pd.DataFrame, metric: str | None = None) -> str:
    """One sentence on the candidate with the smallest p, then the largest effect.

    `metric` defaults to the first of the claims. Whether that candidate beats the best of as
    many random directions is `headline_p`; the percentage is the share of controls whose largest
    |Δ| reaches its own. Raises InputError for a metric without claims.
    """
    if claims.empty:
        return "No direction was under test."
    metric = str(claims["metric"].iloc[0]) if metric is None else metric
    ours = _claims_on(claims, metric)
    if ours.empty:
        return f"No direction under test was measured on {metric}."
    best = ours.sort_values(["p_value", "T"], ascending=[True, False], kind="stable").iloc[0]
    unit = str(summary["alpha_unit"].iloc[0])
    what = _effect(best, metric, UNITS.get(unit, ""))
    p_best = _headline_p(ours, summary, metric)
    return f"{what}; {_comparison(best, ours, p_best, matched_by(summary))}."


def _claims_on(claims: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The claims on a metric that was measured."""
    known = list(dict.fromkeys(claims["metric"]))
    if metric not in known:
        near = difflib.get_close_matches(metric, known, n=1, cutoff=0.0)[0]
        raise InputError(f"there are no claims on {metric!r}; did you mean {near!r}?")
    return claims.loc[(claims["metric"] == metric) & claims["T"].notna()]


def _headline_p(ours: pd.DataFrame, summary: pd.DataFrame, metric: str) -> float:
    """`headline_p` over candidates that share controls; over several such groups, Bonferroni
    weighted by how many candidates each holds."""
    grid = RowGrid.of(summary.assign(prompt_id=""))
    delta = steered_only(grid.cube(summary, f"{metric}_delta")[..., 0], grid.zero)
    family = ours["controls"].iloc[0]
    peers = Peers.of(grid.directions, None if pd.isna(family) else str(family))
    own = statistics.max_statistic(delta[peers.candidates])
    found = [
        statistics.headline_p(own[group], statistics.max_statistic(controls))
        * len(ours)
        / max(1, int((~pd.isna(own[group])).sum()))
        for group, controls in peers.groups(delta)
    ]
    return min([p for p in found if not math.isnan(p)] + [1.0])


def _effect(best: Any, metric: str, unit: str) -> str:
    """What the push does, with its interval, and without a verb that the interval denies."""
    push = f"Pushing {_name(best)} by α = {best['alpha']:g}{unit}".replace("= -", "= −")
    effect, low, high = best["effect"], best["ci_low"], best["ci_high"]
    if metric == KL:
        return f"{push} disturbs the next token by {_disturbance(effect, low, high)}"
    if effect == 0:
        return f"{push} does not change {metric}"
    if math.isnan(low):
        size = _number(effect, effect)
        return f"{push} changes {metric} by {size} (no interval: too few prompts)"
    if low <= 0 <= high:
        size, low, high = (_number(x, effect) for x in (effect, low, high))
        return f"{push} changes {metric} by {size} [{low}, {high}], an interval that includes 0"
    verb, ends = ("raises", (low, high)) if effect > 0 else ("lowers", (-high, -low))
    size, low, high = (_number(x, effect) for x in (abs(effect), *ends))
    return f"{push} {verb} {metric} by {size} [{low}, {high}]"


def _disturbance(effect: float, low: float, high: float) -> str:
    """A mean KL with its interval."""
    size = f"{_number(effect, effect)} nats of KL"
    if math.isnan(low):
        return f"{size} (no interval: too few prompts)"
    return f"{size} [{_number(low, effect)}, {_number(high, effect)}]"


def _comparison(best: Any, ours: pd.DataFrame, p_best: float, alike: str) -> str:
    """How many random directions do as much, and what follows for the candidates together."""
    n, k = len(ours), int(best["n_controls"])
    kind = "direction" if ours["feature"].isna().to_numpy().any() else "feature"
    tested = f"{n} {kind}" + ("s" if n > 1 else "")
    if k == 0:
        return "no random direction was measured, so this is not testable"
    others = f"{k} random directions of the same {alike} ({best['controls']})"
    do = f"{_share(best)} of {others} do as much"
    if k < least_controls(n):
        need = f"{tested} {'needs' if n == 1 else 'need'} at least {least_controls(n)}"
        return f"{do}, not testable with {k} controls: {need}"
    passing = list(ours["verdict"]).count(PASSES)
    if not passing:
        so = "so it does no" if n == 1 else f"and none of the {tested} does"
        return f"{do}, {so} more than random directions"
    if p_best < LEVEL:
        return f"{do} (p = {p_best:.2g}{f' for the best of {tested}' if n > 1 else ''})"
    return (
        f"{do}; {passing} of {tested} do more than random directions (q < {LEVEL:g}), "
        f"but the best of {n} random ones often does as much as this one (p = {p_best:.2g})"
    )


def _name(best: Any) -> str:
    return str(best["direction"]) if pd.isna(best["feature"]) else f"feature {int(best['feature'])}"


def _share(best: Any) -> str:
    """The share of controls that reach T, from p = (1 + count) / (K + 1)."""
    k = int(best["n_controls"])
    count = round(best["p_value"] * (k + 1)) - 1
    percent = 100 * count / k
    if count in (0, k):
        return "none" if count == 0 else "100 %"
    return f"{percent:.1f} %" if percent < 1 or percent > 99 else f"{percent:.0f} %"


def _number(value: float, scale: float) -> str:
    """To two significant digits of `scale`, with a true minus sign."""
    if not math.isfinite(value) or not math.isfinite(scale) or abs(scale) < 1e-6:
        return f"{value:.2g}".replace("-", "−")
    decimals = max(0, 1 - math.floor(math.log10(abs(scale))))
    return f"{value:.{decimals}f}".replace("-", "−")
