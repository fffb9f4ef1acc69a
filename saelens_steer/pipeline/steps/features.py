"""Feature pages: which features are alive, and what each one shown responds to."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from sae_lens import SAE

from saelens_steer.activations import Activations, cache_activations
from saelens_steer.data import Prompt
from saelens_steer.features import pages_of
from saelens_steer.files import write_json, write_text
from saelens_steer.pipeline.context import RunContext
from saelens_steer.pipeline.steps.select import answered
from saelens_steer.report import features_page, read_labels, read_mapping
from saelens_steer.sae import counts_firing

TEMPORARY = f".{os.getpid()}.tmp"
"""A suffix as in files.py, so that the next run removes what a killed one left."""


def feature_data(run: RunContext) -> None:
    """Write feature_pages.json for the candidates and the features named in the config."""
    spec, sae, sides = run.spec.features, run.sae, run.shown_features
    wanted = run.topic_prompts and counts_firing(sae)
    cached_topic = _cached(run, run.topic_prompts) if wanted else nullcontext()
    with all_tokens(run, sae) as own, cached_topic as topic:
        found = pages_of(run.model, sae, own, list(sides), spec, topic, sides)
    about = {"sides": list(run.candidates), "topic_source": spec.topic if topic else None}
    write_json(run.folder.path("feature_pages.json"), found.to_json() | about)


def features(run: RunContext) -> None:
    """Write features.html from feature_pages.json, and labels.json if it exists."""
    data = read_mapping(run.folder.path("feature_pages.json"))
    labels = read_labels(run.folder.current("labels.json"))
    name = run.folder.root.resolve().name
    write_text(run.folder.path("features.html"), features_page(data, name, labels=labels))


@contextmanager
def all_tokens(run: RunContext, sae: SAE[Any]) -> Iterator[Activations]:
    """Activations of all tokens of the selection prompts: the run's, or a temporary cache."""
    if run.spec.activations.tokens == "all" or not counts_firing(sae):
        yield run.activations
    else:
        with _cached(run, answered(run)) as activations:
            yield activations


@contextmanager
def _cached(run: RunContext, prompts: Sequence[Prompt]) -> Iterator[Activations]:
    """Activations of all tokens of the prompts, in a temporary folder of the store."""
    options = {**run.caching, "tokens": "all"}
    store = run.folder.path(".store")
    store.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(TEMPORARY, ".pages-", store) as room:
        place = Path(room) / "activations"
        yield cache_activations(run.model, prompts, hook_name=run.hook_name, out=place, **options)
