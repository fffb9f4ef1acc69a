"""Ways to choose directions, compared by what the chosen ones do: equal norm, equal KL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch

from saelens_steer.config import CompareDirectionsSpec
from saelens_steer.data import Prompt
from saelens_steer.directions.sources import FoundDirections
from saelens_steer.evidence import ASKING
from saelens_steer.features import Scale
from saelens_steer.metrics import LogitMetric, kl
from saelens_steer.steering import plain_directions
from saelens_steer.sweeps import Measurement

EQUAL = ("norm", "kl")


@dataclass(frozen=True)
class Comparison:
    """The prompts that effects are measured on, and what is compared on them."""

    measurement: Measurement
    spec: CompareDirectionsSpec
    scale: Scale
    signs: Mapping[str, int]
    """Side → 1 where the outcome grows towards it, −1 where it falls."""

    @property
    def metric(self) -> LogitMetric:
        return self.measurement.logit_metrics[0]


def comparison_rows(job: Comparison, found: Sequence[FoundDirections]) -> pd.DataFrame:
    """One row per method × side × direction × equal × prompt: method, side, rank, direction,
    feature, equal (norm, kl or asking), alpha (in multiples of the mean ‖x‖, or nats), prompt_id,
    domain, effect, kl and metric.

    effect: Δ of the first logit metric towards the side. A direction that several ways find is
    measured once.
    """
    parts = [_asked(job, side, words) for side, words in job.spec.ask.items()]
    pairs = ((r, name, v) for r in found for name, v in zip(r.names, r.vectors, strict=True))
    distinct = {(one.side, name): vector for one, name, vector in pairs}
    for equal in EQUAL:
        measured = _pushed(job, equal, list(distinct), torch.stack([*distinct.values()]))
        parts += [_rows_of(one, measured) for one in found]
    return pd.concat(parts, ignore_index=True).assign(metric=job.metric.name)


def _pushed(
    job: Comparison, equal: str, names: Sequence[tuple[str, str]], vectors: torch.Tensor
) -> pd.DataFrame:
    """Each direction at one strength: side, direction, equal, alpha, prompt_id, domain, effect."""
    unit, alpha = ("resid_norm", job.spec.norm) if equal == "norm" else ("kl", job.spec.kl)
    change = {"alphas": (0.0, alpha), "alpha_unit": unit, "n_controls": 0, "cache_logits": False}
    metrics = (
        *job.measurement.metric_specs,
        *([] if "kl" in job.measurement.metric_specs else ["kl"]),
    )
    measurement = replace(
        job.measurement,
        spec=job.measurement.spec.model_copy(update=change),
        metric_specs=metrics,
        sae=None,
    )
    directions = plain_directions(vectors, unit, job.scale)
    rows = measurement.calibrated(directions, job.scale).logit_rows(directions)
    zero, moved = (rows[rows["alpha"] == a].reset_index(drop=True) for a in (0.0, alpha))
    each = [
        name for name in names for _ in job.measurement.prompts
    ]  # rows come direction by direction
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


def _rows_of(one: FoundDirections, measured: pd.DataFrame) -> pd.DataFrame:
    about = pd.DataFrame(
        {
            "method": one.method,
            "side": one.side,
            "rank": range(1, len(one.names) + 1),
            "direction": one.names,
            "feature": pd.array(one.features, dtype="Int64"),
        }
    )
    return about.merge(measured, on=["side", "direction"], how="left")


def _asked(job: Comparison, side: str, words: str) -> pd.DataFrame:
    """The plain alternative: each prompt with the words behind it, beside itself."""
    asked = [replace(p, text=f"{p.text} {words}") for p in job.measurement.prompts]
    other = replace(job.measurement, prompts=tuple(asked))
    before, after = job.measurement.unsteered_pass.baseline, other.unsteered_pass.baseline
    prompts: Sequence[Prompt] = job.measurement.prompts
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
