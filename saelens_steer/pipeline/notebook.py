"""What a run does, as single calls for notebooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from sae_lens import SAE

from saelens_steer.activations import Activations, cache_activations
from saelens_steer.config import (
    DEFAULT_METRICS,
    CausalScore,
    CompareEditsSettings,
    FeaturesSpec,
    LabelSpec,
    MetricSpec,
    PromptSpec,
    SelectSpec,
    SweepSpec,
    checked,
)
from saelens_steer.data import Prompt, as_prompts, encode_prompts, some_prompts
from saelens_steer.directions import (
    FAMILIES_NEEDING_ACTIVATIONS,
    CausalScoring,
    rank_by,
    tested_directions,
    with_controls,
)
from saelens_steer.errors import InputError
from saelens_steer.features import NO_SCALE, Scale, Selection, measured_scale, pages_of
from saelens_steer.labels import EvidenceCollector, check_labeller, make_labels
from saelens_steer.metrics import resolve_metrics
from saelens_steer.model import check_stream, default_hook_name, same_places
from saelens_steer.pipeline.result import Result
from saelens_steer.progress import progress
from saelens_steer.report import ShownFeatures
from saelens_steer.sae import check_feature, check_sae, check_sae_at
from saelens_steer.steering import (
    UNITS_NEEDING_ACTIVATIONS,
    Directions,
    Edit,
    SAEEdit,
    Variant,
    variant_of,
)
from saelens_steer.sweeps import (
    ORIGINAL,
    EditComparison,
    Measurement,
    check_comparable,
    edits_table,
)
from saelens_steer.tensors import Vectors


def sweep(
    model: Any,
    sae: SAE[Any],
    prompts: Sequence[Prompt | str],
    *,
    hook_name: str | None = None,
    directions: Vectors | None = None,
    metrics: Sequence[MetricSpec] = DEFAULT_METRICS,
    activations: Activations | None = None,
    **settings: Any,
) -> Result:
    """Steer along features and along random controls, and measure each prompt at each strength.

    `settings` are the fields of SweepSpec, such as features=[3], alphas=[-4, 0, 4],
    n_controls=512, controls=["covariance", "token_difference"]. `directions` [n, d_model] are put
    in the features' place where given. Controls are drawn from `activations` where their family
    takes any, and A_max and mean ‖x‖ measured on them where strengths need these, or else from the
    residuals of the prompts themselves. The hook is the SAE's own; `hook_name` says which where the
    SAE names none (default: the model's middle layer). Raises InputError before any steering for
    what does not fit.
    """
    spec = checked(SweepSpec, settings, "sweep")
    hook_name = _hook_of(model, sae, hook_name)
    measurement = Measurement(
        model, sae, hook_name, tuple(as_prompts(prompts)), spec, tuple(metrics), PromptSpec()
    )
    measurement.check()
    if activations is not None and activations.hook_name not in same_places(hook_name):
        raise InputError(f"the activations are of {activations.hook_name}, not of {hook_name}")
    if activations is None and (
        _measured(spec) or FAMILIES_NEEDING_ACTIVATIONS & set(spec.families)
    ):
        activations = cache_activations(model, prompts, hook_name=hook_name)
    scale = _scale(spec, activations, sae)
    tested = tested_directions(sae, spec, directions, scale)
    everything = with_controls(measurement, tested, activations)
    chosen = list(range(min(len(tested), 2 * spec.completions.top)))
    with progress("strengths", None if spec.calibrated else 0) as note:
        measurement = measurement.calibrated(everything, scale, note=note)
    with progress("sweep", measurement.n_rows(everything)) as note:
        rows = measurement.logit_rows(everything, note)
    with progress("completions", measurement.n_texts(everything, chosen)) as note:
        completions = measurement.completion_rows(everything, chosen, note=note)
    return Result.of(measurement, measurement.joined(rows, completions), completions)


def rank_features(
    model: Any,
    sae: SAE[Any],
    found: Selection,
    prompts: Sequence[Prompt],
    *,
    score: CausalScore = "direct_logit",
    hook_name: str | None = None,
    metrics: Sequence[MetricSpec] = DEFAULT_METRICS,
    **settings: Any,
) -> Selection:
    """The selection ranked anew by what the model makes of its features.

    `prompts` are those of the selection, of both sides at least. `settings` are the fields of
    SelectSpec that count here: k, shortlist, push, push_prompts. The first of `metrics` is the
    outcome: direct_logit reads its tokens, attribution its gradient (a ceiling, no evidence). The
    hook is the SAE's own, or `hook_name` where it names none (default: the middle layer).
    Raises InputError where a score does not fit it.
    """
    sides = {"positive": found.positive, "negative": found.negative, "score": score}
    spec = checked(SelectSpec, {**settings, **sides}, "select")
    hook_name = _hook_of(model, sae, hook_name)
    few = [p for s in (found.positive, found.negative) for p in _of(prompts, s, spec.push_prompts)]
    measurement = Measurement(
        model, sae, hook_name, tuple(few), SweepSpec(n_controls=0), tuple(metrics), PromptSpec()
    )
    measurement.check()
    scoring = CausalScoring(measurement, sae, found.positive, found.negative)
    return rank_by(found, score, scoring, spec, spec.push * found.scale.mean_norm)


def _hook_of(model: Any, sae: SAE[Any], hook_name: str | None) -> str:
    """The hook of an SAE, or the one given, or the middle layer. InputError if it does not fit."""
    named = hook_name or sae.cfg.metadata.hook_name or default_hook_name(model)
    found = check_stream(model, str(named))
    check_sae(sae, model, found)
    return found


def _of(prompts: Sequence[Prompt], domain: str, most: int) -> list[Prompt]:
    """The first prompts of a domain. Raises InputError where there is none."""
    own = [prompt for prompt in prompts if prompt.domain == domain]
    if not own:
        raise InputError(f"none of the prompts has the domain {domain!r}")
    return own[:most]


def _measured(spec: SweepSpec) -> bool:
    """Whether strengths take cached activations to know."""
    return spec.alpha_unit in UNITS_NEEDING_ACTIVATIONS or spec.calibrated


def _scale(spec: SweepSpec, activations: Activations | None, sae: SAE[Any]) -> Scale:
    """What strengths need to know."""
    if not _measured(spec) or activations is None:
        return NO_SCALE
    return measured_scale(activations, sae, spec.named if spec.alpha_unit == "max_act" else ())


def compare_edits(
    model: Any,
    variants: Mapping[str, Edit | Sequence[Edit]],
    prompts: Sequence[Prompt | str],
    hook_name: str,
    *,
    metrics: Sequence[MetricSpec] = (),
    system: str | None = None,
    chat: bool = True,
    **settings: Any,
) -> pd.DataFrame:
    """What the model writes with and without edits: one row per prompt × variant.

    `variants`: name → one edit or several, in order, at `hook_name`. `settings` are those of
    `CompareEditsSettings`: positions, exclude_special_tokens, max_norm, max_new_tokens, batch_size.
    The unedited model comes first, as `original`; columns as in `edits_table`, with activations if
    all edits go through one SAE. Raises InputError before any forward pass.
    """
    spec = checked(CompareEditsSettings, settings, "compare_edits")
    check_stream(model, hook_name)
    if ORIGINAL.name in variants:
        raise InputError("a variant cannot be called 'original', the unpatched model")
    named = [variant_of(name, given, hook_name) for name, given in variants.items()]
    encoded = encode_prompts(model.tokenizer, prompts, system=system, chat=chat)
    check_comparable(model, encoded, spec)
    resolved = resolve_metrics(metrics, model.tokenizer, model.cfg.d_vocab)
    job = EditComparison(model, encoded, named, resolved, spec, _only_sae(named, model, hook_name))
    with progress("compare_edits", job.n_rows) as note:
        return edits_table(job, note)


def _only_sae(variants: Sequence[Variant], model: Any, hook_name: str) -> SAE[Any] | None:
    """The SAE that all edits through an SAE share. Raises InputError for one that does not fit."""
    given = [e for v in variants for e in v.edits[hook_name] if isinstance(e, SAEEdit)]
    saes = {id(edit.sae): edit.sae for edit in given if edit.sae is not None}
    for sae in saes.values():
        check_sae(sae, model, hook_name)
    return next(iter(saes.values())) if len(saes) == 1 else None


def label_features(
    model: Any,
    sae: SAE[Any],
    activations: Activations,
    features: int | Sequence[int],
    prompts: Sequence[Prompt | str],
    *,
    answers: str | Path | None = None,
    system: str | None = None,
    chat: bool = True,
    **options: Any,
) -> pd.DataFrame:
    """Names for features, and how far they can be believed: the rows of labels.csv.

    `activations`: of all tokens of the prompts that features were chosen on. `prompts`: others,
    `n_prompts` of which are steered. `options` are those of LabelSpec, such as
    provider="openai-compatible" with server={"base_url": …, "model": …}. `answers`: a folder where
    a server's answers are kept, so that the same call asks for what is missing. Raises InputError
    before any steering; a feature that could not be named has a row with its status.
    """
    spec = checked(LabelSpec, options, "label_features")
    check_labeller(spec)
    check_sae_at(sae, activations.d_model, activations.hook_name)
    given = [features] if isinstance(features, int) else features
    chosen = list(dict.fromkeys(check_feature(sae, feature) for feature in given))
    scale = NO_SCALE
    if not sae.cfg.metadata.decoder_only:
        scale = measured_scale(activations, sae, chosen)
    prompt_spec = PromptSpec(system=system, chat=chat)
    steered = some_prompts(as_prompts(prompts), spec.n_prompts, spec.seed)
    where = (model, sae, activations.hook_name, activations, steered, spec)
    job = EvidenceCollector(*where, chosen, {}, scale, SweepSpec(), prompt_spec)
    job.measurement(steered).check()
    job.check_prompts()
    with progress("steered texts", job.n_texts) as note:

        def written(measurement: Measurement, directions: Directions) -> pd.DataFrame:
            return measurement.completion_rows(directions, range(len(directions)), note=note)

        inputs = job.collect(job.texts(written))
    return make_labels(inputs, spec, Path(answers) if answers else None).table


def feature_pages(
    model: Any,
    sae: SAE[Any],
    activations: Activations,
    features: int | Sequence[int],
    topic: Activations | None = None,
    **options: Any,
) -> ShownFeatures:
    """Which features are alive in the cache, and what each of these responds to.

    `topic`: activations of prompts whose domains are the categories of one topic. `options` are
    those of FeaturesSpec: contexts, window, tokens, neighbours. A notebook shows the result, and
    its `save` writes it as a page. Raises InputError for an unknown feature or another hook.
    """
    spec = checked(FeaturesSpec, {"topic": None, **options}, "feature_pages")
    chosen = [features] if isinstance(features, int) else features
    return ShownFeatures(**vars(pages_of(model, sae, activations, chosen, spec, topic)))
