"""From evidence to labels: texts are written, features named, names tested."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from saelens_steer.labelling.firing import cached_texts
from saelens_steer.labelling.gather import Labelling, Writer
from saelens_steer.labelling.texts import Texts
from saelens_steer.labels import (
    Answers,
    Label,
    Published,
    label_all,
    labeller_of,
    labels_json,
    labels_table,
    neuronpedia,
)
from saelens_steer.model import hook_layer
from saelens_steer.progress import progress


@dataclass(frozen=True)
class Labelled:
    """Features with their labels, and the texts that these are made from."""

    layer: int
    texts: Texts
    labels: tuple[Label, ...]
    published: Mapping[int, Published]
    """What Neuronpedia says, where it covers the SAE."""

    @property
    def table(self) -> pd.DataFrame:
        """The rows of labels.csv."""
        return labels_table(self.layer, self.labels, self.published)

    def to_json(self) -> dict[str, Any]:
        """The content of labels.json."""
        return labels_json(self.layer, self.labels, self.published)


def labelled(job: Labelling, write: Writer, kept: Path | None = None) -> Labelled:
    """Every feature of the job with a label, or with a status that says why it has none.

    `kept`: the folder of answers that need not be asked for again.
    """
    answers, spec = Answers(kept), job.spec
    texts = job.texts(write)
    cases = job.cases(texts)
    labeller = labeller_of(spec, answers, cached_texts(job.model.tokenizer, job.activations))
    at_once = spec.server.concurrency if spec.server else 1
    with progress("labels", len(cases)) as note:
        labels = label_all(labeller, cases, at_once, note)
    site = neuronpedia(spec.neuronpedia, job.sae.cfg.metadata, answers)
    published = {feature: site.label(feature) for feature in job.features} if site else {}
    return Labelled(hook_layer(job.hook_name), texts, tuple(labels), published)
