"""The table that compares ways to find directions: effects with intervals.

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
    """One row per method × side × equal, and with side `both`: method, evidence, side, equal, n
    directions, directions, effect (mean over directions and prompts; both sides weigh the same),
    kl; difference and ratio to the baseline method's effect; the metric of the effects, and the
    baseline.

    evidence: as in `config.SOURCES`, or asking. 95 % bootstrap intervals resample prompts (the same
    ones for all methods) and, within each side, the directions, which are a sample of what the
    method finds. A ratio is given if the baseline's interval lies above 0. Asking has no strength
    to equalise: compare its KL along with its effect.
    """
    effects = _effects(rows, seed)
    table = [_line(key, own, effects.get((baseline, *key[1:]))) for key, own in effects.items()]
    return pd.DataFrame(table).assign(metric=rows["metric"].iloc[0], baseline=baseline)


@dataclass(frozen=True)
class _Effect:
    """The effect of one method's directions on one side or both."""

    directions: list[str]
    mean: float
    resampled: np.ndarray
    """The mean in each resample."""
    kl: float


def _effects(rows: pd.DataFrame, seed: int) -> dict[tuple[str, str, str], _Effect]:
    """(method, side, equal) → its effect, and side `both` if the method has both sides.

    Directions are resampled with a separate seed for each method (in the order of the rows) and
    side (in alphabetical order).
    """
    prompts = sorted(set(rows["prompt_id"]))
    weights = bootstrap_weights(len(prompts), RESAMPLES, seed) / len(prompts)
    methods, sides = list(dict.fromkeys(rows["method"])), sorted(set(rows["side"]))
    groups: Any = rows.groupby(["method", "side", "equal"], sort=False)
    found: dict[tuple[str, str, str], _Effect] = {}
    for (method, side, equal), own in groups:
        effect = own.pivot(index="rank", columns="prompt_id", values="effect")[prompts].to_numpy()
        n = len(effect)
        rng = np.random.default_rng([seed, methods.index(method), sides.index(side)])
        drawn = rng.multinomial(n, np.full(n, 1 / n), RESAMPLES)
        found[method, side, equal] = _Effect(
            list(dict.fromkeys(own["direction"])),
            float(effect.mean()),
            (drawn / n @ effect * weights).sum(1),
            float(own["kl"].mean()),
        )
    for method, equal in dict.fromkeys((m, e) for m, _, e in found):
        pair = [own for (m, _, e), own in found.items() if (m, e) == (method, equal)]
        if len(pair) == 2:
            found[method, "both", equal] = _Effect(
                list(dict.fromkeys(name for own in pair for name in own.directions)),
                float(np.mean([own.mean for own in pair])),
                np.mean([own.resampled for own in pair], axis=0),
                float(np.mean([own.kl for own in pair])),
            )
    return found


def _line(key: tuple[str, str, str], own: _Effect, base: _Effect | None) -> dict[str, Any]:
    method, side, equal = key
    line = {
        "method": method,
        "evidence": ASKING if method == ASKING else evidence_of(method),
        "side": side,
        "equal": equal,
        "n": len(own.directions),
        "directions": " ".join(own.directions),
        **_with_interval("effect", own.mean, own.resampled),
        "kl": own.kl,
    }
    difference, ratio = _with_interval("difference"), _with_interval("ratio")
    if base is not None:
        difference = _with_interval(
            "difference", own.mean - base.mean, own.resampled - base.resampled
        )
        if np.quantile(base.resampled, TAILS[0]) > 0:
            with np.errstate(divide="ignore"):
                ratios = np.where(
                    base.resampled > 0, own.resampled / np.abs(base.resampled), np.inf
                )
            ratio = _with_interval("ratio", own.mean / base.mean, ratios)
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
