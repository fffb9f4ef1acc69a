"""Measure what the directions of each method do, at equal norm and at equal KL.

`evidence.tabulate_comparison` turns these rows into a table with intervals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch

from saelens_steer.config import CompareDirectionsSpec
from saelens_steer.directions.sources import FoundDirections
from saelens_steer.evidence import ASKING
from saelens_steer.features import Scale
from saelens_steer.metrics import LogitMetric, kl
from saelens_steer.steering import plain_directions
from saelens_steer.sweeps import Measurement


@dataclass(frozen=True)
class ComparisonInputs:
    """The prompts that effects are measured on, and how."""

    measurement: Measurement
    spec: CompareDirectionsSpec
    scale: Scale
    signs: Mapping[str, int]
    """Side → 1 if the outcome grows towards it, −1 if it falls."""

    @property
    def metric(self) -> LogitMetric:
        return self.measurement.logit_metrics[0]


def comparison_rows(job: ComparisonInputs, found: Sequence[FoundDirections]) -> pd.DataFrame:
    """One row per method × side × direction × equal × prompt: method, side, rank, direction,
    feature, equal (norm, kl or asking), alpha (in multiples of the mean ‖x‖, or nats), prompt_id,
    domain, effect, kl and metric.

    effect: Δ of the first logit metric towards the side. A direction that several methods find is
    measured once.
    """
    parts = [_asked(job, side, words) for side, words in job.spec.ask.items()]
    distinct = {
        (one.side, name): vector
        for one in found
        for name, vector in zip(one.names, one.vectors, strict=True)
    }
    names, vectors = list(distinct), torch.stack([*distinct.values()])
    for equal, unit, alpha in (("norm", "resid_norm", job.spec.norm), ("kl", "kl", job.spec.kl)):
        effects = _pushed(job, names, vectors, unit, alpha).assign(equal=equal, alpha=alpha)
        for one in found:
            about = pd.DataFrame(
                {
                    "method": one.method,
                    "side": one.side,
                    "rank": range(1, len(one.names) + 1),
                    "direction": one.names,
                    "feature": pd.array(one.features, dtype="Int64"),
                }
            )
            parts.append(about.merge(effects, on=["side", "direction"], how="left"))
    rows = pd.concat(parts, ignore_index=True).assign(metric=job.metric.name)
    return rows.reindex(columns=COLUMNS)


COLUMNS = [
    *("method", "side", "rank", "direction", "feature", "equal", "alpha"),
    *("prompt_id", "domain", "effect", "kl", "metric"),
]


def _pushed(
    job: ComparisonInputs,
    names: Sequence[tuple[str, str]],
    vectors: torch.Tensor,
    unit: str,
    alpha: float,
) -> pd.DataFrame:
    """Each (side, direction) at one strength: side, direction, prompt_id, domain, effect, kl."""
    change = {"alphas": (0.0, alpha), "alpha_unit": unit, "n_controls": 0, "cache_logits": False}
    metrics = job.measurement.metric_specs
    measurement = replace(
        job.measurement,
        spec=job.measurement.spec.model_copy(update=change),
        metric_specs=metrics if "kl" in metrics else (*metrics, "kl"),
        sae=None,
    )
    directions = plain_directions(vectors, unit, job.scale)
    rows = measurement.calibrated(directions, job.scale).logit_rows(directions)
    zero, moved = (rows[rows["alpha"] == a].reset_index(drop=True) for a in (0.0, alpha))
    each = [name for name in names for _ in job.measurement.prompts]  # the order of the rows
    side, direction = (pd.Series(column) for column in zip(*each, strict=True))
    return pd.DataFrame(
        {
            "side": side,
            "direction": direction,
            "prompt_id": moved["prompt_id"],
            "domain": moved["domain"],
            "effect": (moved[job.metric.name] - zero[job.metric.name]) * side.map(job.signs),
            "kl": moved["kl"],
        }
    )


def _asked(job: ComparisonInputs, side: str, words: str) -> pd.DataFrame:
    """The alternative to steering: each prompt followed by words that ask for the side."""
    prompts = job.measurement.prompts
    asked = replace(
        job.measurement, prompts=tuple(replace(p, text=f"{p.text} {words}") for p in prompts)
    )
    before, after = job.measurement.unsteered_pass.baseline, asked.unsteered_pass.baseline
    effect = job.metric.of(after, baseline=before) - job.metric.of(before, baseline=before)
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
            "kl": kl(after, baseline=before).double().cpu().numpy(),
        }
    )
