"""The sweep of a run: rows, completions, interference and claims."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from sae_lens import SAE

from saelens_steer.data import prompts_hash
from saelens_steer.errors import InputError
from saelens_steer.files import digest, remove
from saelens_steer.metrics import metrics_version
from saelens_steer.model import hook_layer
from saelens_steer.outputs import SWEEP_OUTPUTS, TEXTS, write_result
from saelens_steer.progress import progress
from saelens_steer.stages.run import Run
from saelens_steer.study import Study, tested_directions
from saelens_steer.sweeps import Directions, Store

SHARDS = ".shards"


def sweep(run: Run) -> Path:
    """Rows of every direction × α × prompt, completions, interference and claims."""
    inputs = [run.keys["select"], run.model_key, prompts_hash(run.prompts)]
    inputs += [run.spec.prompts.model_dump(), run.spec.sweep.model_dump()]
    inputs += [metrics_version(run.spec.metrics)]
    outputs = (*SWEEP_OUTPUTS, TEXTS) if run.spec.sweep.generate.files else SWEEP_OUTPUTS
    run.keys["sweep"] = run.steps.do("sweep", inputs, outputs, partial(_sweep, run))
    return run.steps.path("sweep")


def _sweep(run: Run) -> None:
    sae = run.sae
    study = run.study(sae)
    everything = study.with_controls(_tested(run, sae), run.activations)
    with progress("strengths", None if study.spec.alpha_unit == "kl" else 0) as note:
        store = _store(run, "strengths", study, everything)
        study = study.calibrated(everything, run.scale, store, note)
    with progress("sweep", study.n_rows(everything)) as note:
        rows = study.logit_rows(everything, _store(run, "logits", study, everything), note)
    with progress("completions", study.n_texts(everything, _chosen(run))) as note:
        store = _store(run, "texts", study, everything)
        texts = study.completion_rows(everything, _chosen(run), store, note)
    layer = hook_layer(run.hook_name) if run.spec.sweep.generate.files else None
    write_result(run.steps.folder, study.result(rows, texts), run.prompts, layer)
    remove(run.steps.path(SHARDS))


def _tested(run: Run, sae: SAE[Any]) -> Directions:
    features = run.spec.sweep.features
    chosen = (
        [f for side in run.candidates.values() for f in side]
        if isinstance(features, str)
        else features
    )
    if not chosen:
        raise InputError(
            "selection found no live feature that tells the domains apart: "
            "train the SAE longer or name sweep.features"
        )
    sweep = run.spec.sweep.model_copy(update={"features": tuple(chosen)})
    return tested_directions(sae, sweep, scale=run.scale)


def _chosen(run: Run) -> list[int]:
    """Positions, among the directions under test, of those that get completions."""
    top, features = run.spec.sweep.generate.top, run.spec.sweep.features
    if not isinstance(features, str):
        return list(range(min(len(features), 2 * top)))
    positive, negative = (len(side) for side in run.candidates.values())
    return [*range(min(top, positive)), *range(positive, positive + min(top, negative))]


def _store(run: Run, name: str, study: Study, directions: Directions) -> Store:
    """Shards under a key of everything that decides them; texts add their own settings."""
    spec = run.spec.sweep.model_dump(exclude=None if name == "texts" else {"generate"})
    parts = [
        run.model_key,
        run.hook_name,
        study.ids,
        spec,
        metrics_version(run.spec.metrics),
    ]
    vectors = directions.vectors.numpy().tobytes().hex()
    key = digest(name, *parts, run.keys["train"], directions.names, vectors)
    return Store(run.steps.path(SHARDS) / name, key)
