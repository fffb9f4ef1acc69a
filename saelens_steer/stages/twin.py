"""The frozen-decoder twin: an SAE of the same shape whose decoder stays random, swept alike."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from sae_lens import SAE

from saelens_steer.directions import Finder, tested_directions, with_controls
from saelens_steer.errors import InputError
from saelens_steer.evidence import claims
from saelens_steer.metrics import metrics_version
from saelens_steer.outputs import TWIN, TWIN_OUTPUTS, write_twin
from saelens_steer.progress import progress
from saelens_steer.sae import load_sae, train_sae
from saelens_steer.stages.run import Run
from saelens_steer.stages.sae import corpus_version, sae_key
from saelens_steer.stages.select import finder
from saelens_steer.stages.sweep import kept_rows


def twin(run: Run) -> Path:
    """twin/: the twin's SAE, its features by the same selection, rows and claims; or nothing."""
    if not run.spec.sae.twin:
        run.steps.drop("twin-sae", [TWIN])
        run.steps.drop("twin", [TWIN])
        return run.steps.folder
    made = _train(run)
    inputs = [made, run.keys["sweep"], run.spec.select.model_dump()]
    inputs.append(metrics_version(run.spec.metrics))
    run.keys["twin"] = run.steps.do("twin", inputs, TWIN_OUTPUTS, partial(_twin, run))
    return run.steps.path(TWIN) / "claims.csv"


def _train(run: Run) -> str:
    """The twin's SAE, a step of its own: a sweep with other strengths has the same twin."""
    train, folder = run.spec.sae.train, run.steps.path(f"{TWIN}/sae")
    assert train is not None
    frozen = train.model_copy(update={"frozen_decoder": True})
    inputs = [run.model_key, run.hook_name, sae_key(frozen), corpus_version(frozen)]
    make = partial(train_sae, run.model, frozen, run.hook_name, folder, run.spec.sae.log)
    return run.steps.do("twin-sae", inputs, [f"{TWIN}/sae"], make)


def _twin(run: Run) -> None:
    folder = run.steps.path(TWIN)
    sae = load_sae(folder / "sae", device=str(run.model.cfg.device))
    find = finder(run, sae)
    found = find.selection(run.spec.select.score, run.spec.select.k)
    if not found.features:
        raise InputError("selection found no feature of the frozen-decoder twin: train it longer")
    rows = _rows(run, sae, find, found.features)
    families = run.spec.sweep.families
    names = [metric.name for metric in run.study().logit_metrics]
    about = {"controls": families[0] if families else None, "seed": run.spec.sweep.seed}
    chosen = found.to_json(run.hook_name, {"source": f"{TWIN}/sae"})
    write_twin(folder, chosen, rows, claims(rows, names, **about))


def _rows(run: Run, sae: SAE[Any], find: Finder, features: list[int]) -> pd.DataFrame:
    """The twin's candidates and the controls of the run, which the store has already."""
    spec = run.spec.sweep.model_copy(update={"features": tuple(features)})
    tested = tested_directions(sae, spec, scale=find.scale)
    study = run.study(sae)
    everything = with_controls(study, tested, run.activations)
    with progress("frozen-decoder twin", study.n_rows(everything)) as note:
        return pd.concat(kept_rows(run, study, everything, note), ignore_index=True)
