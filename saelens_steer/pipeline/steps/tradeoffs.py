"""Effects of directions and edits on one domain and on all others."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from saelens_steer.config import TradeoffsSpec
from saelens_steer.directions import (
    DirectionFinder,
    NamedDirection,
    TradeoffInputs,
    Treatment,
    tradeoff_rows,
)
from saelens_steer.errors import InputError
from saelens_steer.evidence import Damage, by_domain_table, tradeoffs_table
from saelens_steer.pipeline.context import RunContext
from saelens_steer.pipeline.steps.select import direction_finder, edit_context
from saelens_steer.progress import progress
from saelens_steer.tables import write_csv, write_parquet


def tradeoffs(run: RunContext) -> None:
    """Write tradeoffs.csv and tradeoffs_by_domain.csv."""
    spec = run.spec.tradeoffs
    assert spec is not None
    prompts = run.tradeoff_prompts
    finder = direction_finder(run)
    outcome_sign = finder.scoring.outcome_sign
    target = spec.target or finder.sides[0 if outcome_sign > 0 else 1]
    directions = _directions(finder, spec, target)
    treatments = [
        one for one in (Treatment(d, e) for d in directions for e in spec.edits) if one.applies
    ]
    if not treatments:
        raise InputError(
            f"tradeoffs: nothing to measure, since no direction was found towards {target} or the "
            "edits apply only to features: change tradeoffs.directions or tradeoffs.edits"
        )
    measurement = replace(run.measurement(finder.sae), prompts=prompts)
    sign = outcome_sign if target == finder.sides[0] else -outcome_sign
    context = edit_context(run, finder.sae, spec.edits)
    job = TradeoffInputs(measurement, treatments, context, spec, run.scale.mean_norm, sign)
    with progress("tradeoffs", None) as note:
        rows = tradeoff_rows(job, note)
    _write(run, job, rows)


def _write(run: RunContext, job: TradeoffInputs, rows: pd.DataFrame) -> None:
    seed = run.spec.sweep.seed
    effects, first = job.effects, job.spec.edits[0].label
    metrics = [*(m.name for m in job.measurement.logit_metrics), *effects.text_columns]
    damage = Damage(job.measurement.outcome.name, job.sign, job.spec.domain, job.rates, first)
    write_csv(run.folder.path("tradeoffs.csv"), tradeoffs_table(rows, damage, seed))
    by_domain = by_domain_table(rows, metrics, seed)
    write_csv(run.folder.path("tradeoffs_by_domain.csv"), by_domain)
    write_parquet(run.folder.path("tradeoffs_rows.parquet"), rows)


def _directions(finder: DirectionFinder, spec: TradeoffsSpec, target: str) -> list[NamedDirection]:
    """Each direction once, with all the ways that found it."""
    found: dict[str, NamedDirection] = {}
    for source in spec.directions:
        best = next(r for r in finder.directions_by(source, spec.top) if r.side == target)
        way = "config" if isinstance(source, int) else source
        for name, vector, feature in zip(best.names, best.vectors, best.features, strict=True):
            ways = f"{found[name].found_by} {way}" if name in found else way
            found[name] = NamedDirection(name, vector, feature, ways)
    return list(found.values())
