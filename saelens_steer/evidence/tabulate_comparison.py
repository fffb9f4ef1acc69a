"""The table that compares ways to find directions by their effects, with intervals.

Its rows come from `directions.measure_comparison`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from saelens_steer.config import evidence_of
from saelens_steer.evidence.statistics import bootstrap_weights

ASKING = "asking"
TAILS, RESAMPLES = (0.025, 0.975), 1000


def comparison_table(rows: pd.DataFrame, baseline: str, seed: int = 0) -> pd.DataFrame:
    """One row per method × side × equal, and per method × equal for side `both`.

    Columns: method, evidence (as in `config.SOURCES`, or asking), side, equal, n, directions,
    effect (mean over directions and prompts; both sides have equal weight), kl, difference and
    ratio to the baseline method's effect, metric, baseline. 95 % bootstrap intervals resample
    prompts (the same for all methods) and, within each side, directions. ratio is NaN unless the
    baseline's interval is above 0. Asking has no strength to equalise: compare its KL too.
    """
    effects = _effects(rows, seed)
    table = [_line(key, one, effects.get((baseline, *key[1:]))) for key, one in effects.items()]
    return pd.DataFrame(table).assign(metric=rows["metric"].iloc[0], baseline=baseline)


@dataclass(frozen=True)
class _Effect:
    """The effect of a method's directions on one side or both."""

    directions: list[str]
    mean: float
    resampled: np.ndarray
    """The mean in each resample."""
    kl: float


def _effects(rows: pd.DataFrame, seed: int) -> dict[tuple[str, str, str], _Effect]:
    """(method, side, equal) → effect, with side `both` for methods that have both sides.

    Directions are resampled with a separate seed per method (in row order) and side (in
    alphabetical order).
    """
    prompts = sorted(set(rows["prompt_id"]))
    weights = bootstrap_weights(len(prompts), RESAMPLES, seed) / len(prompts)
    methods, sides = list(dict.fromkeys(rows["method"])), sorted(set(rows["side"]))
    groups: Any = rows.groupby(["method", "side", "equal"], sort=False)
    found: dict[tuple[str, str, str], _Effect] = {}
    for (method, side, equal), group in groups:
        effect = group.pivot(index="rank", columns="prompt_id", values="effect")[prompts].to_numpy()
        n = len(effect)
        rng = np.random.default_rng([seed, methods.index(method), sides.index(side)])
        drawn = rng.multinomial(n, np.full(n, 1 / n), RESAMPLES)
        found[method, side, equal] = _Effect(
            list(dict.fromkeys(group["direction"])),
            float(effect.mean()),
            (drawn / n @ effect * weights).sum(1),
            float(group["kl"].mean()),
        )
    for method, equal in dict.fromkeys((m, e) for m, _, e in found):
        pair = [one for (m, _, e), one in found.items() if (m, e) == (method, equal)]
        if len(pair) == 2:
            found[method, "both", equal] = _Effect(
                list(dict.fromkeys(name for one in pair for name in one.directions)),
                float(np.mean([one.mean for one in pair])),
                np.mean([one.resampled for one in pair], axis=0),
                float(np.mean([one.kl for one in pair])),
            )
    return found


def _line(key: tuple[str, str, str], one: _Effect, base: _Effect | None) -> dict[str, Any]:
    method, side, equal = key
    line = {
        "method": method,
        "evidence": ASKING if method == ASKING else evidence_of(method),
        "side": side,
        "equal": equal,
        "n": len(one.directions),
        "directions": " ".join(one.directions),
        **_with_interval("effect", one.mean, one.resampled),
        "kl": one.kl,
    }
    difference, ratio = _with_interval("difference"), _with_interval("ratio")
    if base is not None:
        moved = one.resampled - base.resampled
        difference = _with_interval("difference", one.mean - base.mean, moved)
        if np.quantile(base.resampled, TAILS[0]) > 0:
            with np.errstate(divide="ignore"):
                ratios = one.resampled / np.abs(base.resampled)
            ratios = np.where(base.resampled > 0, ratios, np.inf)
            ratio = _with_interval("ratio", one.mean / base.mean, ratios)
    return line | difference | ratio


def _with_interval(
    name: str, value: float = np.nan, resampled: np.ndarray | None = None
) -> dict[str, float]:
    """A value and the ends of its interval, as columns; NaN if not given."""
    ends = (np.nan, np.nan)
    if resampled is not None:
        ends = np.quantile(resampled, TAILS, method="nearest")
    low, high = map(float, ends)
    return {name: float(value), f"{name}_ci_low": low, f"{name}_ci_high": high}
