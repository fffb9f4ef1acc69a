"""Labels for the features on the pages, with scores of how far each can be trusted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

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
from saelens_steer.pipeline.outputs import write_generated_texts
from saelens_steer.pipeline.steps.features import all_tokens
from saelens_steer.pipeline.steps.sweep import kept_texts
from saelens_steer.progress import progress, say
from saelens_steer.steering import Directions
from saelens_steer.sweeps import Measurement
from saelens_steer.tables import write_csv

ANSWERS = ".store/answers"
"""The folder of cached answers, one file per question."""


def label_evidence(run: RunContext) -> None:
    """Write label_evidence.json and label_texts/, which name the features and test the names.

    A separate step from `label`, so that naming needs no model.
    """
    spec, sae, sides = run.spec.label, run.sae, run.shown_features
    assert spec is not None
    with all_tokens(run, sae) as activations:
        collector = EvidenceCollector(
            run.model,
            sae,
            run.hook_name,
            activations,
            run.label_prompts,
            spec,
            features=list(sides),
            sides=sides,
            scale=run.scale_of(sae, list(sides)),
            sweep=run.spec.sweep,
            template=spec.prompts or run.spec.prompts,
        )
        with progress("steered texts", collector.n_texts) as note:

            def written(measurement: Measurement, directions: Directions) -> pd.DataFrame:
                return kept_texts(run, measurement, directions, range(len(directions)), note)

            texts = collector.texts(written)
        inputs = collector.collect(texts)
    prompts = {prompt.id: prompt.text for prompt in run.label_prompts}
    write_generated_texts(run.folder.path("label_texts"), texts.features, prompts, inputs.layer)
    write_json(run.folder.path("label_evidence.json"), asdict(inputs))


def label(run: RunContext) -> Callable[[], None]:
    """Name the features; the writer makes labels.json and labels.csv.

    The step stays unfinished if a server left questions unanswered; the next run asks them again.
    """
    assert run.spec.label is not None
    evidence = run.folder.path("label_evidence.json").read_bytes()
    inputs = TypeAdapter(LabelInputs).validate_json(evidence)
    labels = make_labels(inputs, run.spec.label, run.folder.path(ANSWERS))

    def write() -> None:
        write_csv(run.folder.path("labels.csv"), labels.table)
        write_json(run.folder.path("labels.json"), labels.to_json())
        if missing := unfinished(run.folder.path("labels.json")):
            run.folder.mark_unfinished("label")
            for line in summary_of(missing):
                say(f"labels: {line}")

    return write
