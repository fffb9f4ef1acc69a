"""Names for the features on the pages, and how far they can be believed."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path

import pandas as pd
from pydantic import TypeAdapter

from saelens_steer.config import LabelSpec, PromptSpec
from saelens_steer.data import prompts_hash
from saelens_steer.files import write_json
from saelens_steer.labels import (
    EvidenceGathering,
    Gathered,
    Labelled,
    labelled,
    said_of,
    unfinished,
)
from saelens_steer.pipeline.context import RunContext, template
from saelens_steer.pipeline.outputs import (
    EVIDENCE_OUTPUTS,
    LABEL_OUTPUTS,
    write_generated_texts,
    write_table,
)
from saelens_steer.pipeline.steps.features import all_tokens, write_page
from saelens_steer.pipeline.steps.select import where_steered
from saelens_steer.pipeline.steps.sweep import store_of
from saelens_steer.progress import Note, progress, say
from saelens_steer.steering import Directions
from saelens_steer.sweeps import Measurement

ANSWERS = ".store/answers"
"""Where answers of a server are kept, a file for each question."""
EVIDENCE, TEXTS = EVIDENCE_OUTPUTS
LABELS, TABLE = LABEL_OUTPUTS
NAMING = {"provider", "server", "neuronpedia"}
"""Settings that decide who names, and nothing of what is shown."""
HOW = {
    *("base_url", "key_env", "concurrency", "timeout", "retries", "backoff"),
    *("max_requests", "max_tokens"),
}
"""Settings of a server that decide how it is asked, and nothing of its answers."""


def label(run: RunContext) -> Path:
    """labels.json and labels.csv; label_evidence.json, and a file for each feature and prompt.

    Where a server did not answer everything the step stays open: the next time it asks for what is
    missing.
    """
    spec = run.spec.label
    if spec is None:
        _unlabel(run)
        return run.steps.folder
    evidence = _evidence(run, spec)
    naming = spec.model_dump(include=NAMING, exclude={"server": HOW})
    step = "label", [evidence, naming], LABEL_OUTPUTS
    # asked before the step begins: a stop while asking leaves the files of before as they are
    found = None if run.steps.is_done(*step) else _named(run, spec)
    run.keys["label"] = run.steps.do(*step, partial(_write, run, found))
    if missing := unfinished(run.steps.path(LABELS)):
        run.steps.leave_open("label")
        for line in said_of(missing):
            say(f"labels: {line}")
    return run.steps.path(LABELS)


def _unlabel(run: RunContext) -> None:
    """Take the labels of an earlier config away."""
    there = [name for name in LABEL_OUTPUTS + EVIDENCE_OUTPUTS if run.steps.path(name).exists()]
    if there or run.steps.names("label"):
        run.steps.drop("label", LABEL_OUTPUTS)
        run.steps.drop("label-evidence", EVIDENCE_OUTPUTS)
        write_page(run)


def _evidence(run: RunContext, spec: LabelSpec) -> str:
    """The step of its own that takes the model: other names need it no more."""
    inputs = [run.keys["select"], run.keys["cache"], run.keys["train"], run.model_key]
    inputs += [run.hook_name, list(run.shown), *where_steered(run), template(run.spec)]
    inputs += [spec.model_dump(exclude=NAMING), run.spec.activations.model_dump()]
    inputs += [prompts_hash(run.naming), _prompt_spec(run, spec).model_dump()]
    make = partial(_gather, run, spec)
    return run.steps.do("label-evidence", inputs, EVIDENCE_OUTPUTS, make)


def _prompt_spec(run: RunContext, spec: LabelSpec) -> PromptSpec:
    return spec.prompts or run.spec.prompts


def _gather(run: RunContext, spec: LabelSpec) -> None:
    shown, sae = run.shown, run.sae
    what = list(shown), shown, run.scale_of(sae, list(shown))
    with all_tokens(run, sae) as activations:
        where = run.model, sae, run.hook_name, activations, run.naming, spec
        job = EvidenceGathering(*where, *what, run.spec.sweep, _prompt_spec(run, spec))
        with progress("steered texts", job.n_texts) as note:
            texts = job.texts(partial(_written, run, note))
        found = job.gathered(texts)
    asked = {prompt.id: prompt.text for prompt in run.naming}
    write_generated_texts(run.steps.path(TEXTS), texts.features, asked, found.layer)
    write_json(run.steps.path(EVIDENCE), asdict(found))


def _written(
    run: RunContext, note: Note, measurement: Measurement, directions: Directions
) -> pd.DataFrame:
    """The completions of all directions, through the store."""
    store, every = store_of(run, "texts", measurement), list(range(len(directions)))
    return measurement.completion_rows(directions, every, store, run.splitter(store.key), note)


def _named(run: RunContext, spec: LabelSpec) -> Labelled:
    gathered = TypeAdapter(Gathered).validate_json(run.steps.path(EVIDENCE).read_bytes())
    return labelled(gathered, spec, run.steps.path(ANSWERS))


def _write(run: RunContext, found: Labelled | None) -> None:
    assert found is not None
    write_table(run.steps.path(TABLE), found.table)
    write_json(run.steps.path(LABELS), found.to_json())
    write_page(run)
