"""Steps of a run as single calls, for notebooks and scripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from sae_lens import SAE

from saelens_steer.activations import Activations, cache_activations
from saelens_steer.config import (
    AlphaUnit,
    CausalScore,
    CompletionSpec,
    Match,
    SelectSpec,
    SweepSpec,
    TemplateSpec,
    checked,
    template_of,
)
from saelens_steer.data import PromptLike
from saelens_steer.directions import (
    SIGNED,
    CausalScoring,
    DirectionsLike,
    GivenDirections,
    check_causal,
    probe_between,
    rank_by,
    vectors_of,
    with_controls,
)
from saelens_steer.errors import InputError
from saelens_steer.features import Selection, measured_scale
from saelens_steer.metrics import FunctionMetric, MetricsLike, metric_specs
from saelens_steer.model import hook_width
from saelens_steer.model.model_class import Model
from saelens_steer.pipeline.arguments import (
    few_tokens,
    given_prompts,
    hook_of,
    hook_without_sae,
    say_untestable,
)
from saelens_steer.pipeline.held import HeldActivations
from saelens_steer.pipeline.provenance import measured_on
from saelens_steer.pipeline.result import Result
from saelens_steer.progress import progress, say
from saelens_steer.sae import (
    Audit,
    audit_cached,
    check_feature,
    check_splice,
    fitted,
    may_not_fit,
    reads_where_it_steers,
)
from saelens_steer.steering import (
    EditContext,
)
from saelens_steer.sweeps import (
    Measurement,
)
from saelens_steer.tensors import FeatureLike


def sweep(
    model: Model,
    sae: SAE[Any] | None,
    prompts: Sequence[PromptLike],
    *,
    features: FeatureLike | None = None,
    directions: DirectionsLike | None = None,
    hook_name: str | None = None,
    edit: str | Mapping[str, object] = "add",
    alphas: Sequence[float | int] = (-4.0, -2.0, 0.0, 2.0, 4.0),
    alpha_unit: AlphaUnit = "raw",
    positions: Literal["all", "prompt", "last"] = "all",
    exclude_special_tokens: bool = False,
    max_norm: float | int | Literal["auto"] | None = "auto",
    metrics: MetricsLike = ("kl",),
    n_controls: int | Mapping[str, int] = 512,
    controls: str | Sequence[str] = "covariance",
    match: Match | None = None,
    activations: Activations | None = None,
    completions: CompletionSpec | Mapping[str, object] = CompletionSpec(),  # noqa: B008
    batch_tokens: int | None = None,
    seed: int = 0,
    chat: bool | None = None,
    system: str | None = None,
    add_generation_prompt: bool = True,
    chat_template_kwargs: Mapping[str, object] | None = None,
) -> Result:
    """Steer along features and along random controls, and measure each prompt at each strength.

    Pass `features` by index, `directions`, or both. Directions are vectors [d_model] by name, as in
    {"caa": v, "probe": w}; a name may also hold a Probe, or a sum of features {3: 1.0, 17: -0.5},
    which is Σ weight · W_dec[f]. An array [d_model] or [n, d_model], SteeringVectors or a Probe can
    be passed as it is. Vectors have no A_max, so alpha_unit max_act is for features alone. `sae`
    may be None with directions that need none; give `hook_name` then, unless the vectors name
    theirs. `edit`: a name, or a name and options as in a config, such as {"scale": {"error":
    "drop"}}. `metrics`: names, `margin(…)`, `log_prob(…)`, functions, or {name: function}. The
    hook is the one that the SAE's decoder writes at; give `hook_name` if it names none.
    `activations`, cached at that hook, determine controls, A_max and mean ‖x‖; None: those of the
    prompts. A transcoder's A_max comes from the hook it reads, and `activations` may be of either
    hook. See TemplateSpec for `chat` and the options after it, and SweepSpec for the others.
    Invalid arguments raise InputError before any forward pass.
    """
    given: dict[str, object] = {
        "edit": edit, "alphas": alphas, "alpha_unit": alpha_unit, "positions": positions,
        "exclude_special_tokens": exclude_special_tokens, "max_norm": max_norm,
        "n_controls": n_controls, "controls": controls, "match": match,
        "completions": completions, "batch_tokens": batch_tokens, "seed": seed,
    }  # fmt: skip
    if sae is None:
        hook_name = hook_without_sae(model, hook_name, directions)
    else:
        hook_name = hook_of(model, sae, hook_name)
    width = hook_width(model, hook_name)
    found = GivenDirections.of(sae, features, directions, hook_name, width)
    spec = checked(SweepSpec, given | found.named_features, "sweep")
    found.check(spec, sae)
    steered, asked = tuple(given_prompts(model, prompts)), metric_specs(metrics)
    reading = (chat, system, add_generation_prompt, chat_template_kwargs)
    template = template_of("sweep", *reading)
    measurement = Measurement(model, sae, hook_name, steered, spec, asked, template)
    measurement.check()
    held = HeldActivations(measurement, activations)
    measurement = replace(measurement, context=_context(measurement, held.given_steered))
    scale, for_controls = held.scale(), held.for_controls()
    misfits = (
        *_misfits(model, sae, for_controls[0]),
        *few_tokens(spec, for_controls[0]),
    )
    tested = found.scaled(spec.alpha_unit, scale)
    everything = with_controls(measurement, tested, *for_controls)
    say_untestable(everything)
    chosen = list(range(min(len(tested), 2 * spec.completions.top)))
    with progress("strengths", None if spec.calibrated else 0) as note:
        measurement = measurement.calibrated(everything, scale, note=note)
    with progress("sweep", measurement.n_rows(everything)) as note:
        rows = measurement.logit_rows(everything, note)
    with progress("completions", measurement.n_texts(everything, chosen)) as note:
        texts = measurement.completion_rows(everything, chosen, note=note)
    result = Result.of(measurement, measurement.joined(rows, texts), texts)
    return replace(
        result,
        misfits=(*misfits, *result.misfits),
        prompts={prompt.id: prompt.text for prompt in steered},
        config=_config(measurement),
        about=measured_on(measurement),
    )


def _config(measurement: Measurement) -> dict[str, Any]:
    """The settings of the sweep as sections of a config."""
    functions = [s.path if isinstance(s, FunctionMetric) else s for s in measurement.metric_specs]
    specs = [s if isinstance(s, str) else s.model_dump(mode="json") for s in functions]
    template = TemplateSpec(**measurement.template.options).model_dump(mode="json")
    unstated = {"directions"} if measurement.spec.named else {"directions", "features"}
    return {
        "hook_name": measurement.hook_name,
        "prompts": template,
        "metrics": specs,
        "sweep": measurement.spec.model_dump(mode="json", exclude=unstated),
    }


def _misfits(
    model: Model, sae: SAE[Any] | None, activations: Activations | None
) -> tuple[str, ...]:
    """Warnings that the SAE may not fit, from activations that the sweep has anyway.

    Where these do not suffice, an audit that `load_sae(…, model=model)` made does.
    """
    if sae is None or not reads_where_it_steers(sae):
        return ()
    if activations is None:
        audit = Audit(
            notes=("the sweep used no cached activations; give activations= to check it",)
        )
    else:
        audit = audit_cached(sae, activations)
    notes = () if fitted(model, sae) else audit.notes
    found = tuple(may_not_fit(audit.failures, notes))
    for sentence in found:
        say(f"warning: {sentence}")
    return found


def _context(measurement: Measurement, activations: Activations | None) -> EditContext:
    """Inputs of the edit: the SAE, and a probe between the prompts and the given activations."""
    sae, needs = measurement.sae, measurement.spec.edit.options.needs
    if "encoder" in needs and sae is not None:
        check_splice(sae)
    if "probe" not in needs or activations is None:
        return EditContext(sae)
    options: dict[str, Any] = {"tokens": "last", **measurement.template.options}
    options["special_tokens"] = sae
    prompts, hook_name = measurement.prompts, measurement.hook_name
    last = cache_activations(measurement.model, prompts, hook_name=hook_name, **options)
    others = vectors_of(activations, sorted(set(activations.index["domain"])))
    return EditContext(sae, probe_between(last.vectors, others))


def rank_features(
    model: Model,
    sae: SAE[Any],
    found: Selection,
    prompts: Sequence[PromptLike],
    *,
    score: CausalScore = "direct_logit",
    hook_name: str | None = None,
    metrics: MetricsLike = ("kl",),
    k: int = 10,
    shortlist: int = 50,
    push: float | int = 1.0,
    push_prompts: int = 12,
    chat: bool | None = None,
    system: str | None = None,
    add_generation_prompt: bool = True,
    chat_template_kwargs: Mapping[str, object] | None = None,
) -> Selection:
    """Rerank a selection by how its features change the model's predictions.

    `prompts`: the selection prompts, at least those of both sides. The first of `metrics` is the
    outcome: direct_logit needs a `margin(…)`; attribution differentiates it, so it is a ceiling,
    not evidence. SelectSpec documents the other arguments, TemplateSpec `chat` and the options
    after it. The hook is found as in `sweep`. Raises InputError if the score does not apply.
    """
    given = {
        "positive": found.positive, "negative": found.negative, "score": score,
        "k": k, "shortlist": shortlist, "push": push, "push_prompts": push_prompts,
    }  # fmt: skip
    spec = checked(SelectSpec, given, "rank_features")
    hook_name = hook_of(model, sae, hook_name)
    check_causal(score, hook_name)
    check_feature(sae, max(map(int, found.scores.index)))
    listed, pushed = given_prompts(model, prompts), []
    for side in (found.positive, found.negative):
        if not (own := [prompt for prompt in listed if prompt.domain == side]):
            raise InputError(f"no prompt has the domain {side!r}")
        pushed += own[: spec.push_prompts]
    reading = (chat, system, add_generation_prompt, chat_template_kwargs)
    template = template_of("rank_features", *reading)
    asked, unswept = metric_specs(metrics), SweepSpec(n_controls=0)
    measurement = Measurement(model, sae, hook_name, tuple(pushed), unswept, asked, template)
    measurement.check()
    scoring = CausalScoring(measurement, sae, found.positive, found.negative)
    norm = found.scale.mean_norm
    if not reads_where_it_steers(sae) and score not in SIGNED:
        how = {**template.options, "special_tokens": sae}
        norm = measured_scale(
            cache_activations(model, pushed, hook_name=hook_name, **how)
        ).mean_norm
    return rank_by(found, score, scoring, spec, spec.push * norm)
