"""Feature pages: which features are alive, and what each of the shown ones responds to."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from sae_lens import SAE

from saelens_steer.activations import Activations, cache_activations
from saelens_steer.data import Prompt, prompts_hash
from saelens_steer.features import pages_of
from saelens_steer.files import write_json, write_text
from saelens_steer.report import features_page
from saelens_steer.stages.run import Run
from saelens_steer.stages.select import answered
from saelens_steer.stages.template import template

TEMPORARY = f".{os.getpid()}.tmp"
"""As files.py names its own, so that the next run clears what a killed one left."""
OUTPUTS = ["feature_pages.json", "features.html"]


def features(run: Run) -> Path:
    """feature_pages.json and features.html: the candidates, and the features that are named."""
    inputs = [run.keys["select"], run.keys["cache"], run.keys["train"], run.model_key]
    inputs += [run.hook_name, run.spec.features.model_dump(), run.spec.activations.model_dump()]
    inputs += [prompts_hash(run.topic), template(run.spec), run.spec.sweep.named]
    run.keys["features"] = run.steps.do("features", inputs, OUTPUTS, partial(_features, run))
    return run.steps.path("features.html")


def _features(run: Run) -> None:
    spec, sae, candidates = run.spec.features, run.sae, run.candidates
    sides = {f: side for side, own in candidates.items() for f in own}
    shown = [*(f for own in candidates.values() for f in own), *run.spec.sweep.named]
    store = run.steps.path(".store")
    store.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(TEMPORARY, ".pages-", store) as room:
        topic, place = None, Path(room)
        if run.topic and not sae.cfg.metadata.decoder_only:
            topic = _cached(run, run.topic, place / "topic")
        own = _activations(run, sae, place / "prompts")
        found = pages_of(run.model, sae, own, shown, spec, topic, sides)
    about = {"sides": list(candidates), "topic_source": spec.topic if topic else None}
    data = found.to_json() | about
    write_json(run.steps.path(OUTPUTS[0]), data)
    write_text(run.steps.path(OUTPUTS[1]), features_page(data, run.steps.folder.resolve().name))


def _activations(run: Run, sae: SAE[Any], out: Path) -> Activations:
    """Those of the run where it cached all tokens, or else of all tokens of the same prompts."""
    if run.spec.activations.tokens == "all" or sae.cfg.metadata.decoder_only:
        return run.activations
    return _cached(run, answered(run), out)


def _cached(run: Run, prompts: Sequence[Prompt], out: Path) -> Activations:
    """Activations of all tokens of some prompts, on disk for the time being."""
    options = {**run.spec.activations.model_dump(), **template(run.spec), "tokens": "all"}
    return cache_activations(run.model, prompts, hook_name=run.hook_name, out=out, **options)
