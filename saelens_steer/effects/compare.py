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
from saelens_steer.evidence import bootstrap_weights
from saelens_steer.features import Scale
from saelens_steer.metrics import LogitMetric, kl
from saelens_steer.steering import plain_directions
from saelens_steer.study import Study

ASKING = "asking"
EQUAL = ("norm", "kl")
KINDS = {
    CEILING: "ceiling",
    ASKING: "asking",
    "direct_logit": "tokens",
    "difference_of_means": "without SAE",
    "linear_probe": "without SAE",
}
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
