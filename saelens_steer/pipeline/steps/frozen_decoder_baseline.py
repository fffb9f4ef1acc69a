"""The frozen-decoder baseline: an SAE of the same shape whose decoder stays random, swept alike."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from sae_lens import SAE

from saelens_steer.directions import DirectionFinder, tested_directions, with_controls
from saelens_steer.errors import InputError
from saelens_steer.evidence import claims
from saelens_steer.metrics import metrics_version
from saelens_steer.pipeline.context import RunContext
from saelens_steer.pipeline.outputs import BASELINE, BASELINE_OUTPUTS, write_baseline
from saelens_steer.pipeline.steps.sae import corpus_version, sae_key
from saelens_steer.pipeline.steps.select import direction_finder
from saelens_steer.pipeline.steps.sweep import kept_rows
from saelens_steer.progress import progress
from saelens_steer.sae import load_sae, train_sae


def baseline(run: RunContext) -> Path:
    """frozen_decoder_baseline/: the baseline's SAE, its features by the same selection, rows and claims; or nothing."""
    if not run.spec.sae.frozen_decoder_baseline:
        run.steps.drop("frozen_decoder_baseline_sae", [BASELINE])
        run.steps.drop("frozen_decoder_baseline", [BASELINE])
        return run.steps.folder
    made = _train(run)
    inputs = [made, run.keys["sweep"], run.spec.select.model_dump()]
    inputs.append(metrics_version(run.spec.metrics))
    run.keys["frozen_decoder_baseline"] = run.steps.do(
        "frozen_decoder_baseline", inputs, BASELINE_OUTPUTS, partial(_baseline, run)
    )
    return run.steps.path(BASELINE) / "claims.csv"


def _train(run: RunContext) -> str:
    """The baseline's SAE, a step of its own: a sweep with other strengths has the same baseline."""
    train, folder = run.spec.sae.train, run.steps.path(f"{BASELINE}/sae")
    assert train is not None
    frozen = train.model_copy(update={"frozen_decoder": True})
    inputs = [run.model_key, run.hook_name, sae_key(frozen), corpus_version(frozen)]
    make = partial(train_sae, run.model, frozen, run.hook_name, folder, run.spec.sae.log)
    return run.steps.do("frozen_decoder_baseline_sae", inputs, [f"{BASELINE}/sae"], make)


def _baseline(run: RunContext) -> None:
    folder = run.steps.path(BASELINE)
    sae = load_sae(folder / "sae", device=str(run.model.cfg.device))
    finder = direction_finder(run, sae)
    found = finder.selection(run.spec.select.score, run.spec.select.k)
    if not found.features:
        raise InputError(
            "selection found no feature of the frozen-decoder baseline: train it longer"
        )
    rows = _rows(run, sae, finder, found.features)
    families = run.spec.sweep.families
    names = [metric.name for metric in run.measurement().logit_metrics]
    about = {"controls": families[0] if families else None, "seed": run.spec.sweep.seed}
    chosen = found.to_json(run.hook_name, {"source": f"{BASELINE}/sae"})
    write_baseline(folder, chosen, rows, claims(rows, names, **about))


def _rows(
    run: RunContext, sae: SAE[Any], finder: DirectionFinder, features: list[int]
) -> pd.DataFrame:
    """The baseline's candidates and the controls of the run, which the store has already."""
    spec = run.spec.sweep.model_copy(update={"features": tuple(features)})
    tested = tested_directions(sae, spec, scale=finder.scale)
    measurement = run.measurement(sae)
    everything = with_controls(measurement, tested, run.activations)
    with progress("frozen-decoder baseline", measurement.n_rows(everything)) as note:
        return pd.concat(kept_rows(run, measurement, everything, note), ignore_index=True)
