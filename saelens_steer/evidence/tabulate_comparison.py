"""Ways to choose directions compared: effects with intervals over prompts and directions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from saelens_steer.evidence.statistics import bootstrap_weights

CEILING = "attribution"
"""It differentiates the outcome: it is shown as a ceiling and is no evidence."""


ASKING = "asking"
KINDS = {
    CEILING: "ceiling",
    ASKING: "asking",
    "direct_logit": "tokens",
    "difference_of_means": "without SAE",
    "linear_probe": "without SAE",
}
TAILS, RESAMPLES = (0.025, 0.975), 1000
ENDS = ("", "_ci_low", "_ci_high")


def comparison_table(rows: pd.DataFrame, baseline: str, seed: int = 0) -> pd.DataFrame:
    """One row per method × side × equal, and with side `both`: method, evidence, side, equal, n
    directions, directions, effect (mean over directions and prompts; both sides weigh the same),
    kl; difference and ratio to the baseline method's effect; the metric that effects are of, and
    the baseline.

    95 % bootstrap intervals draw prompts (the same ones for all methods) and, within each side, the
    directions: a few of them stand for a way to choose. A ratio is given where the baseline's own
    interval lies above 0. Asking has no strength to make equal: its KL stands beside its effect.
    """
    groups = _drawn(rows, seed)
    table = [_line(key, own, groups.get((baseline, *key[1:]))) for key, own in groups.items()]
    return pd.DataFrame(table).assign(metric=rows["metric"].iloc[0], baseline=baseline)


@dataclass(frozen=True)
class _Own:
    """What one method chose on one side or both, and what that did."""

    directions: list[str]
    effect: float
    drawn: np.ndarray
    """The effect in each resample."""
    kl: float


def _drawn(rows: pd.DataFrame, seed: int) -> dict[tuple[str, str, str], _Own]:
    """(method, side, equal) → what it did; `both` where a method has both sides.

    The draws of directions have a seed of their own for each method (in the order of the rows) and
    side (in the order of the alphabet).
    """
    prompts = sorted(set(rows["prompt_id"]))
    weights = bootstrap_weights(len(prompts), RESAMPLES, seed) / len(prompts)
    methods, sides = list(dict.fromkeys(rows["method"])), sorted(set(rows["side"]))
    groups: Any = rows.groupby(["method", "side", "equal"], sort=False)
    found: dict[tuple[str, str, str], _Own] = {}
    for (method, side, equal), own in groups:
        effect = own.pivot(index="rank", columns="prompt_id", values="effect")[prompts].to_numpy()
        rng = np.random.default_rng([seed, methods.index(method), sides.index(side)])
        each = rng.multinomial(len(effect), np.full(len(effect), 1 / len(effect)), RESAMPLES)
        drawn = (each / len(effect) @ effect * weights).sum(1)
        names = list(dict.fromkeys(own["direction"]))
        mean = float(effect.mean())
        found[method, side, equal] = _Own(names, mean, drawn, float(own["kl"].mean()))
    for method, equal in dict.fromkeys((m, e) for m, _, e in found):
        pair = [own for (m, _, e), own in found.items() if (m, e) == (method, equal)]
        if len(pair) == 2:
            found[method, "both", equal] = _mean(pair)
    return found


def _mean(sides: Sequence[_Own]) -> _Own:
    return _Own(
        list(dict.fromkeys(name for own in sides for name in own.directions)),
        float(np.mean([own.effect for own in sides])),
        np.mean([own.drawn for own in sides], axis=0),
        float(np.mean([own.kl for own in sides])),
    )


def _line(key: tuple[str, str, str], own: _Own, base: _Own | None) -> dict[str, object]:
    method, side, equal = key
    line: dict[str, object] = {
        "method": method,
        "evidence": evidence_of(method),
        "side": side,
        "equal": equal,
        "n": len(own.directions),
        "directions": " ".join(own.directions),
        **_named("effect", own.effect, own.drawn),
        "kl": own.kl,
    }
    if base is None:
        return line | _named("difference") | _named("ratio")
    line |= _named("difference", own.effect - base.effect, own.drawn - base.drawn)
    if not np.quantile(base.drawn, TAILS[0]) > 0:
        return line | _named("ratio")
    with np.errstate(divide="ignore"):
        drawn = np.where(base.drawn > 0, own.drawn / np.abs(base.drawn), np.inf)
    return line | _named("ratio", own.effect / base.effect, drawn)


def _named(name: str, value: float = np.nan, drawn: np.ndarray | None = None) -> dict[str, float]:
    """A number under its name, and the ends of its interval."""
    low, high = (np.nan, np.nan) if drawn is None else np.quantile(drawn, TAILS, method="nearest")
    return dict(zip((f"{name}{end}" for end in ENDS), map(float, (value, low, high)), strict=True))


def evidence_of(method: str) -> str:
    """What a number says: selection, tokens (the score reads those of the metric), without SAE,
    asking, or ceiling (it used the outcome)."""
    return KINDS.get(method, "selection")
