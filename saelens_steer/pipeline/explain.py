"""Labels and pages of features as single calls, for notebooks and scripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from sae_lens import SAE

from saelens_steer.activations import Activations, cache_activations
from saelens_steer.config import (
    FeaturesSpec,
    LabelSpec,
    ServerSpec,
    SweepSpec,
    check_labeller,
    checked,
    template_of,
)
from saelens_steer.data import PromptLike, some_prompts
from saelens_steer.features import NO_SCALE, measured_scale, pages_of
from saelens_steer.labels import EvidenceCollector, make_labels
from saelens_steer.model.model_class import Model, tokenizer_of
from saelens_steer.pipeline.arguments import (
    check_start,
    given_prompts,
    hook_of,
)
from saelens_steer.progress import progress
from saelens_steer.report import FeaturePages
from saelens_steer.sae import check_sae_at, counts_firing, feature_indices, is_transcoder
from saelens_steer.steering import Directions
from saelens_steer.sweeps import Measurement
from saelens_steer.tensors import FeatureLike


def label_features(
    model: Model,
    sae: SAE[Any],
    activations: Activations,
    features: FeatureLike,
    prompts: Sequence[PromptLike],
    *,
    answers: str | Path | None = None,
    chat: bool | None = None,
    system: str | None = None,
    add_generation_prompt: bool = True,
    chat_template_kwargs: Mapping[str, object] | None = None,
    provider: Literal["offline", "openai-compatible"] = "offline",
    server: ServerSpec | Mapping[str, object] | None = None,
    evidence: Literal["both", "input", "output"] = "both",
    alphas: Literal["wide"] | Sequence[float | int] = (-2.0, -1.0, 1.0, 2.0),
    n_prompts: int = 12,
    max_new_tokens: int = 48,
    examples: int = 2,
    example_chars: int = 200,
    contexts: int = 5,
    detection: int = 20,
    neuronpedia: str | None = "https://www.neuronpedia.org",
    seed: int = 0,
) -> pd.DataFrame:
    """Label features and score each label; returns the rows of labels.csv.

    `activations`: all tokens of the selection prompts, at the hook that the SAE reads. `prompts`:
    other prompts, of which `n_prompts` are steered. `answers`: a folder that keeps a server's
    answers; the same call then asks only for missing ones. `server`: such as {"base_url": …,
    "model": …}. LabelSpec documents the other arguments, TemplateSpec `chat` and the options after
    it. Invalid arguments raise InputError before any steering. A feature that could not be
    labelled has a row with its status.
    """
    given = {
        "provider": provider, "server": server, "evidence": evidence, "alphas": alphas,
        "n_prompts": n_prompts, "max_new_tokens": max_new_tokens, "examples": examples,
        "example_chars": example_chars, "contexts": contexts, "detection": detection,
        "neuronpedia": neuronpedia, "seed": seed,
    }  # fmt: skip
    spec = checked(LabelSpec, given, "label_features")
    check_labeller(spec)
    check_sae_at(sae, activations.d_model, activations.hook_name)
    hook_name = hook_of(model, sae, None if is_transcoder(sae) else activations.hook_name)
    chosen = list(dict.fromkeys(feature_indices(sae, features)))
    scale = measured_scale(activations, sae, chosen) if counts_firing(sae) else NO_SCALE
    reading = (chat, system, add_generation_prompt, chat_template_kwargs)
    template = template_of("label_features", *reading)
    steered = some_prompts(given_prompts(model, prompts), spec.n_prompts, spec.seed)
    where = (model, sae, hook_name, activations, steered, spec)
    job = EvidenceCollector(*where, chosen, {}, scale, SweepSpec(), template)
    job.measurement(steered).check()
    check_start(activations, job.measurement(steered).start, tokenizer_of(model))
    if is_transcoder(sae):
        options: dict[str, Any] = {"hook_name": hook_name, **template.options}
        options["special_tokens"] = sae
        job = replace(job, steered_activations=cache_activations(model, steered, **options))
    job.check_prompts()
    with progress("steered texts", job.n_texts) as note:

        def written(measurement: Measurement, directions: Directions) -> pd.DataFrame:
            return measurement.completion_rows(directions, range(len(directions)), note=note)

        inputs = job.collect(job.texts(written))
    return make_labels(inputs, spec, Path(answers) if answers else None).table


def feature_pages(
    model: Model,
    sae: SAE[Any],
    activations: Activations,
    features: FeatureLike,
    topic: Activations | None = None,
    *,
    contexts: int = 8,
    window: int = 12,
    tokens: int = 10,
    neighbours: int = 6,
) -> FeaturePages:
    """Show when features fire, what they promote, and how many of the SAE's features are alive.

    `topic`: activations of prompts whose domains are the categories of one topic. FeaturesSpec
    documents the other arguments. Notebooks display the result; `save` writes it as a page. Raises
    InputError for an unknown feature, or activations of a hook that the SAE does not read.
    """
    given = {"contexts": contexts, "window": window, "tokens": tokens, "neighbours": neighbours}
    spec = checked(FeaturesSpec, {"topic": None, **given}, "feature_pages")
    chosen = feature_indices(sae, features)
    return FeaturePages(**vars(pages_of(model, sae, activations, chosen, spec, topic)))
