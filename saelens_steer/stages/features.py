"""Feature pages: which features are alive, and what each of the shown ones responds to."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from saelens_steer.activations import Activations, cache_activations
from saelens_steer.data import Prompt, prompts_hash
from saelens_steer.features import pages_of
from saelens_steer.files import write_json, write_text
from saelens_steer.report import features_page
from saelens_steer.stages.run import Run
from saelens_steer.stages.select import answered
from saelens_steer.stages.template import template

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
    topic = None
    if run.topic and not sae.cfg.metadata.decoder_only:
        topic = _cached(run, run.topic)
    found = pages_of(run.model, sae, _activations(run), shown, spec, topic, sides)
    about = {"sides": list(candidates), "topic_source": spec.topic if topic else None}
    data = found.to_json() | about
    write_json(run.steps.path(OUTPUTS[0]), data)
    write_text(run.steps.path(OUTPUTS[1]), features_page(data, run.steps.folder.resolve().name))


def _activations(run: Run) -> Activations:
    """Those of the run where it cached all tokens, or else of all tokens of the same prompts."""
    if run.spec.activations.tokens == "all":
        return run.activations
    return _cached(run, answered(run))


def _cached(run: Run, prompts: tuple[Prompt, ...]) -> Activations:
    """Activations of all tokens of some prompts, in memory."""
    options = {**run.spec.activations.model_dump(), **template(run.spec), "tokens": "all"}
    return cache_activations(run.model, prompts, hook_name=run.hook_name, **options)
