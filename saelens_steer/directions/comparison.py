"""Ways to choose directions, compared by what the chosen ones do: equal norm, equal KL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch

from saelens_steer.config import CompareSpec
from saelens_steer.data import Prompt
from saelens_steer.directions.sources import Rival
from saelens_steer.evidence import ASKING
from saelens_steer.features import Scale
from saelens_steer.metrics import LogitMetric, kl
from saelens_steer.steering import plain_directions
from saelens_steer.sweeps import Study

EQUAL = ("norm", "kl")


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
