"""Names for the features on the pages, and how far they can be believed."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from sae_lens import SAE

from saelens_steer.activations import Activations
from saelens_steer.config import LabelSpec
from saelens_steer.data import prompts_hash
from saelens_steer.files import write_json
from saelens_steer.labelling import Labelling, labelled
from saelens_steer.labels import unfinished
from saelens_steer.outputs import LABEL_OUTPUTS, write_generated_texts, write_table
from saelens_steer.progress import Note, progress, say
from saelens_steer.stages.check import label_prompts
from saelens_steer.stages.features import all_tokens, write_page
from saelens_steer.stages.run import Run
from saelens_steer.stages.select import where_steered
from saelens_steer.stages.sweep import store_of
from saelens_steer.study import Study
from saelens_steer.sweeps import Directions

ANSWERS = ".store/answers"
"""Where answers of a server are kept, a file for each question."""
LABELS, TABLE, TEXTS = LABEL_OUTPUTS
HOW = {
    *("base_url", "key_env", "concurrency", "timeout", "retries", "backoff"),
    *("max_requests", "max_tokens"),
}
"""Settings of a server that decide how it is asked, and nothing about its answers."""
SAID = 3
"""So many of the things that are missing are named."""


def label(run: Run) -> Path:
    """labels.json, labels.csv, and a file for each feature and prompt with the steered texts.

    Where a server did not answer everything the step stays open: the next time it asks for what is
    missing.
    """
    spec = run.spec.label
    if spec is None:
        _unlabel(run)
        return run.steps.folder
    inputs = [run.keys["features"], run.model_key, *where_steered(run)]
    inputs += [spec.model_dump(exclude={"server": HOW}), prompts_hash(label_prompts(run, spec))]
    inputs += [(spec.prompts or run.spec.prompts).model_dump()]
    run.keys["label"] = run.steps.do("label", inputs, LABEL_OUTPUTS, partial(_label, run, spec))
    if missing := unfinished(run.steps.path(LABELS)):
        run.steps.leave_open("label")
        more = f"; and {len(missing) - SAID} more" if len(missing) > SAID else ""
        say(f"not labelled in full: {'; '.join(missing[:SAID])}{more}")
        say("the same command asks for what is missing")
    return run.steps.path(LABELS)


def _unlabel(run: Run) -> None:
    """Take the labels of an earlier config away."""
    if run.steps.path(LABELS).exists():
        run.steps.drop("label", LABEL_OUTPUTS)
        write_page(run)


def _label(run: Run, spec: LabelSpec) -> None:
    sae = run.sae
    with all_tokens(run, sae) as activations:
        job = _job(run, spec, sae, activations)
        with progress("steered texts", job.n_texts) as note:
            write = partial(_written, run, note)
            found = labelled(job, write, run.steps.path(ANSWERS))
    asked = {prompt.id: prompt.text for prompt in job.prompts}
    write_generated_texts(run.steps.path(TEXTS), found.texts.features, asked, found.layer)
    write_table(run.steps.path(TABLE), found.table)
    write_json(run.steps.path(LABELS), found.to_json())
    write_page(run)


def _job(run: Run, spec: LabelSpec, sae: SAE[Any], activations: Activations) -> Labelling:
    shown, prompts = run.shown, label_prompts(run, spec)
    where = run.model, sae, run.hook_name, activations, prompts, spec
    what = list(shown), shown, run.scale_of(sae, list(shown))
    return Labelling(*where, *what, run.spec.sweep, spec.prompts or run.spec.prompts)


def _written(run: Run, note: Note, study: Study, directions: Directions) -> pd.DataFrame:
    """The completions of all directions, through the store."""
    store, every = store_of(run, "texts", study), list(range(len(directions)))
    return study.completion_rows(directions, every, store, run.room(store.key), note)
