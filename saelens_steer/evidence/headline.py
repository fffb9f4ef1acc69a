"""The sentence at the top of a report."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from saelens_steer.config import EDITS
from saelens_steer.errors import InputError, or_known
from saelens_steer.evidence import statistics
from saelens_steer.evidence.claims import LEVEL, PASSES, least_controls, steered_only
from saelens_steer.evidence.grid import KL, RowGrid
from saelens_steer.evidence.matching import PUSHES, Matching, edit_of, matched_by
from saelens_steer.numbers import number, percent
from saelens_steer.steering import direction_label

UNITS = {"max_act": " × A_max", "resid_norm": " × mean ‖x‖", "kl": " nats of KL", "unit": " (unit)"}
"""Printed after α; nothing if α is a multiple of W_dec[f] itself."""


def headline(claims: pd.DataFrame, summary: pd.DataFrame, metric: str | None = None) -> str:
    """One sentence on the candidate with the smallest p, then the largest effect.

    `metric` defaults to the first of the claims. Whether that candidate beats the best of as
    many random directions is `headline_p`; the percentage is the share of controls whose largest
    |Δ| reaches the candidate's. Raises InputError for a metric without claims.
    """
    if claims.empty:
        return "No direction was tested."
    known = list(dict.fromkeys(claims["metric"]))
    metric = str(known[0]) if metric is None else metric
    if metric not in known:
        raise InputError(f"there are no claims on {metric!r}; {or_known(metric, known)}")
    ours = claims.loc[(claims["metric"] == metric) & claims["T"].notna()]
    if ours.empty:
        return f"No tested direction was measured on {metric}."
    best = ours.sort_values(["p_value", "T"], ascending=[True, False], kind="stable").iloc[0]
    unit = UNITS.get(str(summary["alpha_unit"].iloc[0]), "")
    effect = _effect(best, metric, _treatment(best, edit_of(summary), unit))
    p_best = _headline_p(ours, summary, metric)
    return f"{effect}; {_comparison(best, ours, p_best, matched_by(summary))}."


def _headline_p(ours: pd.DataFrame, summary: pd.DataFrame, metric: str) -> float:
    """`headline_p` over candidates that share controls; over several such groups, Bonferroni
    weighted by how many candidates each holds."""
    grid = RowGrid.of(summary.assign(prompt_id=""))
    delta = steered_only(grid.cube(summary, f"{metric}_delta")[..., 0], grid.zero)
    family = ours["controls"].iloc[0]
    matching = Matching.of(grid.directions, None if pd.isna(family) else str(family))
    own = statistics.max_statistic(delta[matching.candidates])
    found = [
        statistics.headline_p(own[group], statistics.max_statistic(controls))
        * len(ours)
        / max(1, int((~pd.isna(own[group])).sum()))
        for group, controls in matching.groups(delta)
    ]
    return min([p for p in found if not math.isnan(p)] + [1.0])


def _treatment(best: Any, edit: str, unit: str) -> str:
    """What was done to the direction, and how strongly if the edit has a strength."""
    name = direction_label(str(best["direction"]))
    strength = f"α = {best['alpha']:g}{unit}".replace("= -", "= −")
    if edit in PUSHES:
        return f"Pushing along {name} by {strength}"
    kind = edit.partition("(")[0]
    if kind == "reconstruct":
        return "Replacing activations by the SAE's reconstruction"
    options = EDITS.get(kind)
    timeless = options is not None and options.STRENGTH is None
    return f"Applying {edit} to {name}" + ("" if timeless else f" at {strength}")


def _effect(best: Any, metric: str, push: str) -> str:
    """The effect with its interval, in words that the interval supports."""
    effect, low, high = best["effect"], best["ci_low"], best["ci_high"]

    def shown(value: float) -> str:
        return _number(value, effect)

    no_interval = "(no interval: too few prompts)"
    if metric == KL:
        interval = no_interval if math.isnan(low) else f"[{shown(low)}, {shown(high)}]"
        return f"{push} shifts the next-token distribution by {shown(effect)} nats of KL {interval}"
    if effect == 0:
        return f"{push} does not change {metric}"
    if math.isnan(low):
        return f"{push} changes {metric} by {shown(effect)} {no_interval}"
    if low <= 0 <= high:
        interval = f"[{shown(low)}, {shown(high)}], an interval that includes 0"
        return f"{push} changes {metric} by {shown(effect)} {interval}"
    verb, low, high = ("raises", low, high) if effect > 0 else ("lowers", -high, -low)
    return f"{push} {verb} {metric} by {shown(abs(effect))} [{shown(low)}, {shown(high)}]"


def _comparison(best: Any, ours: pd.DataFrame, p_best: float, alike: str) -> str:
    """The share of random directions with as large an effect, and the verdict on all candidates."""
    n, k = len(ours), int(best["n_controls"])
    kind = "direction" if ours["feature"].isna().to_numpy().any() else "feature"
    tested = f"{n} {kind}" + ("s" if n > 1 else "")
    if k == 0:
        return "no random direction was measured, so the effect cannot be tested"
    others = f"{k:,} random directions of the same {alike} ({best['controls']})"
    do = f"{_share(best)} of {others} do as much"
    if k < least_controls(n):
        need = f"{tested} {'needs' if n == 1 else 'need'} at least {least_controls(n):,}"
        return f"{do}; the effect is not testable with {k:,} controls, because {need}"
    passing = list(ours["verdict"]).count(PASSES)
    if not passing:
        so = "so it does no" if n == 1 else f"and none of the {tested} does"
        return f"{do}, {so} more than random directions"
    if p_best < LEVEL:
        return f"{do} (p = {p_best:.2g}{f' for the best of {tested}' if n > 1 else ''})"
    more = "does" if passing == 1 else "do"
    return (
        f"{do}; {passing} of {tested} {more} more than random directions (q < {LEVEL:g}), "
        f"but the best of {n} random ones often does as much as this one (p = {p_best:.2g})"
    )


def _share(best: Any) -> str:
    """The share of controls that reach T, from p = (1 + count) / (K + 1)."""
    k = int(best["n_controls"])
    count = round(best["p_value"] * (k + 1)) - 1
    return "none" if count == 0 else percent(count / k)


def _number(value: float, scale: float) -> str:
    """A number rounded to two significant digits of `scale`, with a true minus sign."""
    if not math.isfinite(value) or not math.isfinite(scale) or abs(scale) < 1e-6:
        return f"{value:.2g}".replace("-", "−")
    return number(value, max(0, 1 - math.floor(math.log10(abs(scale)))))
