"""Names for the features on the pages, and how far they can be believed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial

import pandas as pd
from pydantic import TypeAdapter

from saelens_steer.files import write_json
from saelens_steer.labels import (
    EvidenceCollector,
    LabelInputs,
    make_labels,
    summary_of,
    unfinished,
)
from saelens_steer.pipeline.context import RunContext
from saelens_steer.pipeline.outputs import (
    write_generated_texts,
    write_table,
)
from saelens_steer.pipeline.steps.features import all_tokens
from saelens_steer.pipeline.steps.sweep import store_of
from saelens_steer.progress import Note, progress, say
from saelens_steer.steering import Directions
from saelens_steer.sweeps import Measurement

ANSWERS = ".store/answers"
"""Where answers of a server are kept, a file for each question."""


def label_evidence(run: RunContext) -> None:
    """label_evidence.json and label_texts/: what features are named from and tested on.

    A step apart from naming, which needs no model.
    """
    spec = run.spec.label
    assert spec is not None
    shown, sae = run.shown, run.sae
    what = list(shown), shown, run.scale_of(sae, list(shown))
    with all_tokens(run, sae) as activations:
        where = run.model, sae, run.hook_name, activations, run.naming, spec
        job = EvidenceCollector(*where, *what, run.spec.sweep, spec.prompts or run.spec.prompts)
        with progress("steered texts", job.n_texts) as note:
            texts = job.texts(partial(_written, run, note))
        found = job.collect(texts)
    asked = {prompt.id: prompt.text for prompt in run.naming}
    write_generated_texts(run.folder.path("label_texts"), texts.features, asked, found.layer)
    write_json(run.folder.path("label_evidence.json"), asdict(found))


def _written(
    run: RunContext, note: Note, measurement: Measurement, directions: Directions
) -> pd.DataFrame:
    """The completions of all directions, through the store."""
    store, every = store_of(run, "texts", measurement), list(range(len(directions)))
    return measurement.completion_rows(directions, every, store, run.splitter(store.key), note)


def label(run: RunContext) -> Callable[[], None]:
    """labels.json and labels.csv, once everything is asked.

    The step stays open if a server did not answer everything: the next time it asks for the rest.
    """
    assert run.spec.label is not None
    evidence = run.folder.path("label_evidence.json").read_bytes()
    inputs = TypeAdapter(LabelInputs).validate_json(evidence)
    found = make_labels(inputs, run.spec.label, run.folder.path(ANSWERS))

    def write() -> None:
        write_table(run.folder.path("labels.csv"), found.table)
        write_json(run.folder.path("labels.json"), found.to_json())
        if missing := unfinished(run.folder.path("labels.json")):
            run.folder.leave_open("label")
            for line in summary_of(missing):
                say(f"labels: {line}")

    return write
