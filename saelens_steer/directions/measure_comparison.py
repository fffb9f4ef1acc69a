"""Compare sources of directions by their effects at equal norm and at equal KL.

`evidence.tabulate_comparison` turns these rows into a table with intervals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from saelens_steer.config import CompareDirectionsSpec
from saelens_steer.directions.measure import (
    Dose,
    EffectMeasurement,
    NamedDirection,
    Treatment,
    cell_at,
)
from saelens_steer.directions.sources import FoundDirections
from saelens_steer.evidence import ASKING
from saelens_steer.features import Scale
from saelens_steer.metrics import kl
from saelens_steer.steering import EditContext, scaled_vectors
from saelens_steer.sweeps import Measurement
from saelens_steer.tensors import Vectors


@dataclass(frozen=True)
class ComparisonInputs:
    """Inputs of `comparison_rows`."""

    measurement: Measurement
    spec: CompareDirectionsSpec
    scale: Scale
    signs: Mapping[str, int]
    """Side → 1 if the outcome rises towards it, −1 if it falls."""


def comparison_rows(job: ComparisonInputs, found: Sequence[FoundDirections]) -> pd.DataFrame:
    """One row per method × side × direction × equal × prompt: method, side, rank, direction,
    feature, equal (norm, kl or asking), alpha (in multiples of the mean ‖x‖, or nats), prompt_id,
    domain, effect, kl and metric.

    effect: Δ of the first logit metric towards the direction's side. A direction found by several
    methods is measured once.
    """
    parts = [_asked(job, side, words) for side, words in job.spec.ask.items()]
    distinct = {
        (one.side, name): vector
        for one in found
        for name, vector in zip(one.names, one.vectors, strict=True)
    }
    names, vectors = list(distinct), torch.stack([*distinct.values()])
    effects = EffectMeasurement(job.measurement, EditContext())
    at_norm = [
        cell_at(one, job.spec.norm, 1.0, "norm")
        for one in _treatments(names, scaled_vectors(vectors, [], "resid_norm", job.scale))
    ]
    units = _treatments(names, scaled_vectors(vectors, [], "kl"))
    at_kl = effects.kl_cells(units, job.spec.kl, job.scale.mean_norm)
    for cells in (at_norm, at_kl):
        measured = _measured(job, effects, names, cells)
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
            parts.append(about.merge(measured, on=["side", "direction"], how="left"))
    rows = pd.concat(parts, ignore_index=True).assign(metric=job.measurement.outcome.name)
    return rows.reindex(columns=COLUMNS)


COLUMNS = [
    *("method", "side", "rank", "direction", "feature", "equal", "alpha"),
    *("prompt_id", "domain", "effect", "kl", "metric"),
]


def _treatments(names: Sequence[tuple[str, str]], vectors: Vectors) -> list[Treatment]:
    pairs = zip(names, vectors, strict=True)
    return [Treatment(NamedDirection(name, vector)) for (_, name), vector in pairs]


def _measured(
    job: ComparisonInputs,
    effects: EffectMeasurement,
    names: Sequence[tuple[str, str]],
    cells: Sequence[Dose],
) -> pd.DataFrame:
    """Columns: side, direction, equal, alpha, prompt_id, domain, effect, kl."""
    rows, zero = effects.logit_rows(cells), effects.unsteered_rows()
    prompts = [job.measurement.prompts[prompt] for prompt in rows["prompt"]]
    side = pd.Series([names[cell][0] for cell in rows["cell"]])
    outcome = job.measurement.outcome.name
    delta = rows[outcome].to_numpy() - zero[outcome].to_numpy()[rows["prompt"].to_numpy()]
    return pd.DataFrame(
        {
            "side": side,
            "direction": [names[cell][1] for cell in rows["cell"]],
            "equal": cells[0].rule,
            "alpha": cells[0].alpha,
            "prompt_id": [prompt.id for prompt in prompts],
            "domain": [prompt.domain for prompt in prompts],
            "effect": delta * side.map(job.signs),
            "kl": rows["kl"],
        }
    )


def _asked(job: ComparisonInputs, side: str, words: str) -> pd.DataFrame:
    """The effect of asking: each prompt followed by words that request the side."""
    prompts = job.measurement.prompts
    asked = job.measurement.asking(words)
    before, after = job.measurement.unsteered_pass.baseline, asked.unsteered_pass.baseline
    outcome = job.measurement.outcome
    effect = outcome.of(after, baseline=before) - outcome.of(before, baseline=before)
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
