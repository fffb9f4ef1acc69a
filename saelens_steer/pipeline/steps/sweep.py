"""The sweep of a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pandas as pd
from sae_lens import SAE

from saelens_steer.directions import tested_directions, with_controls
from saelens_steer.errors import InputError
from saelens_steer.files import digest
from saelens_steer.metrics import LogitMetric, metrics_version
from saelens_steer.model import hook_layer
from saelens_steer.pipeline.arguments import few_tokens, say_untestable
from saelens_steer.pipeline.context import RunContext
from saelens_steer.pipeline.outputs import read_rows, write_result, write_rows
from saelens_steer.pipeline.result import Result
from saelens_steer.pipeline.steps.select import direction_finder, edit_context
from saelens_steer.progress import Note, progress, say, unnoted
from saelens_steer.steering import CANDIDATE, Directions
from saelens_steer.sweeps import NO_STORE, Measurement, Store

STORE = ".store"
"""The record store, so that a changed config measures only what is new."""
WRITING = {"max_new_tokens", "temperature", "samples"}


def sweep(run: RunContext) -> None:
    """Write rows of every direction × α × prompt, completions, interference and claims."""
    sae = run.sae
    context = edit_context(run, sae, [run.spec.sweep.edit])
    measurement = replace(run.measurement(sae), context=context)
    everything = with_controls(measurement, _tested(run, sae), run.activations)
    say_untestable(everything)
    doubts = few_tokens(measurement.spec, run.activations)
    _say_size(measurement, everything)
    measurement = _calibrated(run, measurement, everything)
    chosen = _chosen(run, everything)
    tables = partial(_tables, run, measurement, everything)
    with progress("sweep", measurement.n_rows(everything)) as note:
        for _ in tables(note):
            pass  # computes and stores every shard
    with progress("completions", measurement.n_texts(everything, chosen)) as note:
        texts = kept_texts(run, measurement, everything, chosen, note)
    place = write_rows(run.folder.root, (measurement.joined(table, texts) for table in tables()))
    result = Result.of(measurement, read_rows(place, measurement.metric_columns(texts)), texts)
    result = replace(result, misfits=(*doubts, *result.misfits))
    layer = hook_layer(run.hook_name) if run.spec.sweep.completions.files else None
    texts_of = {prompt.id: prompt.text for prompt in run.prompts}
    write_result(run.folder.root, result, texts_of, layer)


def kept_rows(
    run: RunContext, measurement: Measurement, everything: Directions, note: Note
) -> list[pd.DataFrame]:
    """Rows of other directions under the same settings, from the same store."""
    return list(_tables(run, _calibrated(run, measurement, everything), everything, note))


def kept_texts(
    run: RunContext,
    measurement: Measurement,
    directions: Directions,
    chosen: Sequence[int],
    note: Note,
) -> pd.DataFrame:
    """Completions of the chosen directions; those in the store are not generated again."""
    store = store_of(run, "texts", measurement)
    return measurement.completion_rows(directions, chosen, store, run.splitter(store.key), note)


def _calibrated(run: RunContext, measurement: Measurement, everything: Directions) -> Measurement:
    with progress("strengths", None if measurement.spec.calibrated else 0) as note:
        store = store_of(run, "strengths", measurement)
        return measurement.calibrated(everything, run.scale, store, run.splitter(store.key), note)


def _tables(
    run: RunContext, measurement: Measurement, everything: Directions, note: Note = unnoted
) -> Iterator[pd.DataFrame]:
    store = store_of(run, "rows", measurement)
    logits = store_of(run, "logits", measurement) if run.spec.sweep.cache_logits else NO_STORE
    return measurement.logit_tables(everything, store, logits, run.splitter(store.key), note)


def _say_size(measurement: Measurement, everything: Directions) -> None:
    """Announce the size of the logits if they are kept."""
    if measurement.spec.cache_logits:
        size = 4 * measurement.n_rows(everything) * measurement.model.cfg.d_vocab / 2**30
        say(f"sweep.cache_logits: {size:.2g} GiB of logits will be kept in {STORE}/logits")


def _tested(run: RunContext, sae: SAE[Any]) -> Directions:
    spec = run.spec.sweep
    if spec.directions is not None:
        return direction_finder(run, sae).under_test(spec.directions, spec.top, spec.alpha_unit)
    features = spec.features
    if isinstance(features, str):
        features = tuple(f for side in run.candidates.values() for f in side)
    if not features:
        raise InputError(
            "selection found no live feature that separates the domains: "
            "train the SAE longer or set sweep.features"
        )
    return tested_directions(sae, spec.model_copy(update={"features": features}), scale=run.scale)


def _chosen(run: RunContext, everything: Directions) -> list[int]:
    """Indices of the directions under test that get completions."""
    top, features = run.spec.sweep.completions.top, run.spec.sweep.features
    n_tested = everything.families.count(CANDIDATE)
    if not isinstance(features, str) or run.spec.sweep.directions is not None:
        return list(range(min(n_tested, 2 * top)))
    positive, negative = (len(side) for side in run.candidates.values())
    return [*range(min(top, positive)), *range(positive, positive + min(top, negative))]


def store_of(run: RunContext, name: str, measurement: Measurement) -> Store:
    """A store whose key covers all that determines its shards, except directions and strengths,
    which are in the shards' names."""
    spec = measurement.spec
    parts: list[object] = [run.model_key, run.hook_name, measurement.ids, measurement.added]
    parts += [run.keys["train"]]
    parts += [spec.edit.label, spec.positions, spec.exclude_special_tokens, spec.norm_limit]
    parts += [measurement.unsteered_pass.batch_tokens]
    if name == "rows":
        measured = zip(run.spec.metrics, measurement.metrics, strict=True)
        of_logits = [spec for spec, metric in measured if isinstance(metric, LogitMetric)]
        parts += [metrics_version(of_logits, run.fresh)]
        parts += [spec.cache_logits]  # computes all logits, which changes the last digits
    if name == "texts":
        parts += [spec.seed, spec.completions.model_dump(include=WRITING)]
    return Store(run.folder.path(STORE) / name, digest(name, *parts))
