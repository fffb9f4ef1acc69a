"""Ways to choose directions, compared by what the chosen ones do: equal norm, equal KL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from saelens_steer.config import CompareSpec
from saelens_steer.data import Prompt
from saelens_steer.effects.rivals import CEILING, Rival
from saelens_steer.evidence.statistics import bootstrap_weights
from saelens_steer.features import Scale
from saelens_steer.metrics import LogitMetric, kl
from saelens_steer.study import Study
from saelens_steer.sweeps import plain_directions

ASKING = "asking"
EQUAL = ("norm", "kl")
TAILS, RESAMPLES = (0.025, 0.975), 1000
ENDS = ("", "_ci_low", "_ci_high")


@dataclass(frozen=True)
class Comparison:
    """The prompts that effects are measured on, and what is compared on them."""

    study: Study
    spec: CompareSpec
    scale: Scale
    signs: Mapping[str, int]
    """Side → 1 where the outcome grows towards it, −1 where it falls."""

    @property
    def metric(self) -> LogitMetric:
        return self.study.logit_metrics[0]


def comparison_rows(job: Comparison, rivals: Sequence[Rival]) -> pd.DataFrame:
    """One row per method × side × direction × equal × prompt: method, side, rank, direction,
    feature, equal (norm, kl or asking), alpha (in multiples of the mean ‖x‖, or nats), prompt_id,
    domain, effect, kl and metric.

    effect: Δ of the first logit metric towards the side. A direction that several ways find is
    measured once.
    """
    parts = [_asked(job, side, words) for side, words in job.spec.ask.items()]
    pairs = ((r, name, v) for r in rivals for name, v in zip(r.names, r.vectors, strict=True))
    distinct = {(rival.side, name): vector for rival, name, vector in pairs}
    for equal in EQUAL:
        measured = _pushed(job, equal, list(distinct), torch.stack([*distinct.values()]))
        parts += [_rows_of(rival, measured) for rival in rivals]
    return pd.concat(parts, ignore_index=True).assign(metric=job.metric.name)


def _pushed(
    job: Comparison, equal: str, names: Sequence[tuple[str, str]], vectors: torch.Tensor
) -> pd.DataFrame:
    """Each direction at one strength: side, direction, equal, alpha, prompt_id, domain, effect."""
    unit, alpha = ("resid_norm", job.spec.norm) if equal == "norm" else ("kl", job.spec.kl)
    change = {"alphas": (0.0, alpha), "alpha_unit": unit, "n_controls": 0, "cache_logits": False}
    metrics = (*job.study.metric_specs, *([] if "kl" in job.study.metric_specs else ["kl"]))
    study = replace(
        job.study, spec=job.study.spec.model_copy(update=change), metric_specs=metrics, sae=None
    )
    directions = plain_directions(vectors, unit, job.scale)
    rows = study.calibrated(directions, job.scale).logit_rows(directions)
    zero, moved = (rows[rows["alpha"] == a].reset_index(drop=True) for a in (0.0, alpha))
    each = [name for name in names for _ in job.study.prompts]  # rows come direction by direction
    side = pd.Series([own for own, _ in each])
    return pd.DataFrame(
        {
            "side": side,
            "direction": [direction for _, direction in each],
            "equal": equal,
            "alpha": alpha,
            "prompt_id": moved["prompt_id"],
            "domain": moved["domain"],
            "effect": (moved[job.metric.name] - zero[job.metric.name]) * side.map(job.signs),
            "kl": moved["kl"],
        }
    )


def _rows_of(rival: Rival, measured: pd.DataFrame) -> pd.DataFrame:
    about = pd.DataFrame(
        {
            "method": rival.method,
            "side": rival.side,
            "rank": range(1, len(rival.names) + 1),
            "direction": rival.names,
            "feature": pd.array(rival.features, dtype="Int64"),
        }
    )
    return about.merge(measured, on=["side", "direction"], how="left")


def _asked(job: Comparison, side: str, words: str) -> pd.DataFrame:
    """The plain alternative: each prompt with the words behind it, beside itself."""
    asked = [replace(p, text=f"{p.text} {words}") for p in job.study.prompts]
    other = replace(job.study, prompts=tuple(asked))
    before, after = job.study.ground.baseline, other.ground.baseline
    prompts: Sequence[Prompt] = job.study.prompts
    effect = job.metric.of(after, before) - job.metric.of(before, before)
    return pd.DataFrame(
        {
            "method": ASKING,
            "side": side,
            "rank": 1,
            "direction": ASKING,
            "feature": pd.array([None] * len(prompts), dtype="Int64"),
            "equal": ASKING,
            "alpha": np.nan,
            "prompt_id": [p.id for p in prompts],
            "domain": [p.domain for p in prompts],
            "effect": effect.double().cpu().numpy() * job.signs[side],
            "kl": kl(before, after).double().cpu().numpy(),
        }
    )


def comparison_table(rows: pd.DataFrame, baseline: str, seed: int = 0) -> pd.DataFrame:
    """One row per method × side × equal, and with side `both`: method, evidence, side, equal, n
    directions, features, effect (mean over directions and prompts) with a 95 % bootstrap interval
    over prompts, kl; difference and ratio to the baseline method's effect, with their intervals
    (a ratio is missing where the baseline's effect is not above 0, and infinite where it may be);
    the metric that effects are of, and the baseline.

    Asking has no strength to make equal: its KL stands beside its effect.
    """
    prompts = sorted(set(rows["prompt_id"]))
    weights = bootstrap_weights(len(prompts), RESAMPLES, seed) / len(prompts)
    groups = _by_prompt(rows, prompts)
    table = [
        _line(key, own, groups.get((baseline, *key[1:])), weights) for key, own in groups.items()
    ]
    return pd.DataFrame(table).assign(metric=rows["metric"].iloc[0], baseline=baseline)


@dataclass(frozen=True)
class _Own:
    """One method, on one side or both: what it chose and what that did, by prompt."""

    directions: list[str]
    effect: np.ndarray
    kl: float


def _by_prompt(rows: pd.DataFrame, prompts: Sequence[str]) -> dict[tuple[str, str, str], _Own]:
    """(method, side, equal) → the mean over its directions for each prompt; both sides weigh the
    same in `both`."""
    found: dict[tuple[str, str, str], _Own] = {}
    groups: Any = rows.groupby(["method", "side", "equal"], sort=False)
    for key, own in groups:
        effect = own.groupby("prompt_id")["effect"].mean().reindex(prompts).to_numpy()
        names = list(dict.fromkeys(own["direction"]))
        found[key] = _Own(names, effect, float(own["kl"].mean()))
    for method, equal in dict.fromkeys((m, e) for m, _, e in found):
        sides = [own for (m, _, e), own in found.items() if (m, e) == (method, equal)]
        if len(sides) == 2:
            both = np.mean([own.effect for own in sides], axis=0)
            names = [name for own in sides for name in own.directions]
            found[method, "both", equal] = _Own(names, both, float(np.mean([o.kl for o in sides])))
    return found


def _line(
    key: tuple[str, str, str], own: _Own, base: _Own | None, weights: np.ndarray
) -> dict[str, object]:
    method, side, equal = key
    drawn = weights @ own.effect
    low, high = np.quantile(drawn, TAILS)
    line: dict[str, object] = {
        "method": method,
        "evidence": evidence_of(method),
        "side": side,
        "equal": equal,
        "n": len(own.directions),
        "directions": " ".join(own.directions),
        "effect": float(own.effect.mean()),
        "effect_ci_low": float(low),
        "effect_ci_high": float(high),
        "kl": own.kl,
    }
    return line | _beside(own, base, weights)


def _beside(own: _Own, base: _Own | None, weights: np.ndarray) -> dict[str, float]:
    """The effect less that of the baseline, and over it; the same prompts are drawn for both."""
    names = ("difference", "ratio")
    if base is None:
        return {f"{name}{end}": float("nan") for name in names for end in ENDS}
    difference = own.effect - base.effect
    low, high = np.quantile(weights @ difference, TAILS)
    found = dict(zip((f"difference{e}" for e in ENDS), (difference.mean(), low, high), strict=True))
    ratio = own.effect.mean() / base.effect.mean() if base.effect.mean() > 0 else np.nan
    below = weights @ base.effect
    with np.errstate(divide="ignore", invalid="ignore"):
        drawn = np.where(below > 0, (weights @ own.effect) / below, np.inf)
    ends = np.quantile(drawn, TAILS, method="nearest") if ratio == ratio else (np.nan, np.nan)
    found |= dict(zip((f"ratio{e}" for e in ENDS), (ratio, *ends), strict=True))
    return {name: float(value) for name, value in found.items()}


def evidence_of(method: str) -> str:
    """What a number says: selection, without SAE, asking, or ceiling (it used the outcome)."""
    if method == CEILING:
        return "ceiling"
    if method == ASKING:
        return "asking"
    return "without SAE" if method in ("difference_of_means", "linear_probe") else "selection"
