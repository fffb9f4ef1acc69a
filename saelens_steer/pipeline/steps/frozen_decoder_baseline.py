"""The frozen-decoder baseline: an SAE of the same shape whose decoder stays random."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd
from sae_lens import SAE

from saelens_steer.directions import DirectionFinder, tested_directions, with_controls
from saelens_steer.errors import InputError
from saelens_steer.evidence import claims
from saelens_steer.files import write_json
from saelens_steer.pipeline.context import RunContext
from saelens_steer.pipeline.step_table import BASELINE
from saelens_steer.pipeline.steps.select import direction_finder, edit_context
from saelens_steer.pipeline.steps.sweep import kept_rows
from saelens_steer.progress import progress
from saelens_steer.sae import load_sae, train_sae
from saelens_steer.tables import write_csv, write_parquet


def train(run: RunContext) -> None:
    """Train the baseline SAE. A separate step from its sweep, so that other strengths reuse it."""
    spec, folder = run.spec.sae.train, run.folder.path(f"{BASELINE}/sae")
    assert spec is not None
    frozen = spec.model_copy(update={"frozen_decoder": True})
    train_sae(run.model, frozen, run.hook_name, folder, **run.spec.sae.log.model_dump())


def sweep(run: RunContext) -> None:
    """Select the baseline's features as the run selects its own; write their rows and claims."""
    folder = run.folder.path(BASELINE)
    sae = load_sae(folder / "sae", device=str(run.model.cfg.device))
    finder = direction_finder(run, sae)
    found = finder.selection(run.spec.select.score, run.spec.select.k)
    if not found.features:
        raise InputError(
            "selection found no feature of the frozen-decoder baseline: raise "
            "sae.train.training_tokens"
        )
    rows = _rows(run, sae, finder, found.features)
    families = run.spec.sweep.families
    names = [metric.name for metric in run.measurement().logit_metrics]
    about = {"controls": families[0] if families else None, "seed": run.spec.sweep.seed}
    chosen = found.to_json(run.hook_name, {"source": f"{BASELINE}/sae"})
    write_json(folder / "features.json", chosen)
    write_parquet(folder / "rows.parquet", rows)
    write_csv(folder / "claims.csv", claims(rows, names, **about))


def _rows(
    run: RunContext, sae: SAE[Any], finder: DirectionFinder, features: list[int]
) -> pd.DataFrame:
    """Rows of the baseline's candidates and of the run's controls; the latter are in the store."""
    spec = run.spec.sweep.model_copy(update={"features": tuple(features)})
    tested = tested_directions(sae, spec, scale=finder.scale)
    context = edit_context(run, sae, [spec.edit])
    measurement = replace(run.measurement(sae), context=context)
    everything = with_controls(measurement, tested, run.activations)
    with progress("frozen-decoder baseline", measurement.n_rows(everything)) as note:
        return pd.concat(kept_rows(run, measurement, everything, note), ignore_index=True)
