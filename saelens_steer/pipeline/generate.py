"""Texts of a model with and without edits, side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from sae_lens import SAE

from saelens_steer.activations import Activations, cache_activations
from saelens_steer.config import (
    CompareEditsSettings,
    GenerateSettings,
    TemplateSpec,
    checked,
    template_of,
)
from saelens_steer.data import Prompt, PromptLike, TextStart, encode_prompts, start_of
from saelens_steer.directions import draw_controls
from saelens_steer.errors import InputError
from saelens_steer.features import NO_SCALE, Scale, measured_scale
from saelens_steer.metrics import MetricsLike, check_starts, resolve_metrics
from saelens_steer.model import hook_width, same_places
from saelens_steer.model.model_class import Model, tokenizer_of
from saelens_steer.pipeline.arguments import check_activations, given_prompts
from saelens_steer.pipeline.placed import (
    EditLike,
    Placed,
    only_sae,
    placed_edits,
    sae_of_starts,
)
from saelens_steer.pipeline.texts import Texts
from saelens_steer.progress import progress
from saelens_steer.steering import Edit, Variant, composed, of_parts, scaled_vectors
from saelens_steer.sweeps import (
    ORIGINAL,
    EditComparison,
    MatchedPush,
    check_comparable,
    edits_table,
)
from saelens_steer.tensors import Direction, Vectors


def generate(
    model: Model,
    prompts: Sequence[PromptLike],
    treatments: Mapping[str, EditLike | Mapping[str, EditLike]],
    *,
    hook_name: str | None = None,
    alphas: Sequence[float | int] = (1.0,),
    alpha_unit: Literal["raw", "unit", "resid_norm"] = "raw",
    temperature: float | int = 0.0,
    samples: int = 1,
    max_new_tokens: int = 64,
    controls: int = 1,
    metrics: MetricsLike = (),
    positions: Literal["all", "prompt", "generated", "last"] = "all",
    exclude_special_tokens: bool = False,
    max_norm: float | int | Literal["auto"] | None = "auto",
    activations: Activations | None = None,
    batch_size: int = 16,
    seed: int = 0,
    chat: bool | None = None,
    system: str | None = None,
    add_generation_prompt: bool = True,
    chat_template_kwargs: Mapping[str, object] | None = None,
) -> Texts:
    """Generate without steering, with each treatment, and with random controls of the same norm.

    `treatments`: name → a vector [d_model], which is added at each of `alphas`; one edit or
    several in order, which set their own strength; or a mapping from hooks to these.
    `hook_name`: the hook of treatments that name none; edits of an SAE know theirs. `controls`:
    random directions of the covariance family per treatment and strength, each with the same ‖Δx‖
    at each token. `activations`: at the hook, for the controls and for mean ‖x‖; by default those
    of the prompts are cached. GenerateSettings documents the other arguments,
    TemplateSpec `chat` and the options after it.

    Returns one row per prompt × variant × sample, the unsteered `original` first, with the columns
    of `compare_edits`, alpha (NaN for edits) and control (whether it is a random one). Invalid
    arguments raise InputError before any forward pass.
    """
    given = {
        "alphas": alphas, "alpha_unit": alpha_unit, "temperature": temperature,
        "samples": samples, "max_new_tokens": max_new_tokens, "controls": controls,
        "positions": positions, "exclude_special_tokens": exclude_special_tokens,
        "max_norm": max_norm, "batch_size": batch_size, "seed": seed,
    }  # fmt: skip
    spec = checked(GenerateSettings, given, "generate")
    reading = (chat, system, add_generation_prompt, chat_template_kwargs)
    template, listed = template_of("generate", *reading), given_prompts(model, prompts)
    placed = placed_edits(model, treatments, hook_name)
    default = GenerateSettings()
    given_here = [k for k in ("alphas", "alpha_unit") if getattr(spec, k) != getattr(default, k)]
    if given_here and not any(one.has_strength for one in placed):
        raise InputError(
            "every treatment is an edit, which sets its own strength: leave out "
            f"{' and '.join(given_here)}, or give vectors"
        )
    sae = sae_of_starts(model, listed, template, placed)
    job = _comparison(model, listed, placed, metrics, spec, template, sae)
    start = start_of(tokenizer_of(model), job.prompts, sae)
    given_at = _given(model, placed, activations, start)
    cached = _Cached(model, listed, given_at, template, sae, spec)
    job = replace(job, temperature=spec.temperature, samples=spec.samples, seed=spec.seed)
    written = [
        each
        for one in placed
        for strong in _strengths(one, cached)
        for each in (strong, *_controls_of(strong, cached))
    ]
    variants = [replace(one.variant, name=str(i)) for i, one in enumerate(written)]
    job = replace(job, variants=variants)
    with progress("generate", job.n_rows) as note:
        table = edits_table(job, note)
    about = {str(i): one for i, one in enumerate(written)} | {ORIGINAL.name: UNSTEERED}
    return Texts(
        table.assign(
            alpha=[about[name].alpha for name in table["variant"]],
            control=[about[name].is_control for name in table["variant"]],
            variant=[about[name].treatment for name in table["variant"]],
        )
    )


def compare_edits(
    model: Model,
    variants: Mapping[str, EditLike | Mapping[str, EditLike]],
    prompts: Sequence[PromptLike],
    hook_name: str | None = None,
    *,
    metrics: MetricsLike = (),
    chat: bool | None = None,
    system: str | None = None,
    add_generation_prompt: bool = True,
    chat_template_kwargs: Mapping[str, object] | None = None,
    positions: Literal["all", "prompt", "generated", "last"] = "all",
    exclude_special_tokens: bool = False,
    max_norm: float | int | Literal["auto"] | None = "auto",
    max_new_tokens: int = 64,
    batch_size: int = 16,
) -> Texts:
    """Generate with and without edits: one row per prompt × variant, first the unedited `original`.

    `variants`: name → one edit, or several in order, at `hook_name`; a vector is added as it is; a
    mapping from hooks to any of these edits several hooks at once. See CompareEditsSettings for the
    settings, TemplateSpec for `chat` and the options after it. Columns as in `edits_table`, with
    activations if all edits use the same SAE. Invalid arguments raise InputError at once.
    """
    given = {
        "positions": positions, "exclude_special_tokens": exclude_special_tokens,
        "max_norm": max_norm, "max_new_tokens": max_new_tokens, "batch_size": batch_size,
    }  # fmt: skip
    spec = checked(CompareEditsSettings, given, "compare_edits")
    placed = placed_edits(model, variants, hook_name)
    reading = (chat, system, add_generation_prompt, chat_template_kwargs)
    template, listed = template_of("compare_edits", *reading), given_prompts(model, prompts)
    sae = sae_of_starts(model, listed, template, placed)
    job = _comparison(model, listed, placed, metrics, spec, template, sae)
    with progress("compare_edits", job.n_rows) as note:
        return Texts(edits_table(job, note).drop(columns="sample"))


@dataclass(frozen=True)
class _Strength:
    """A variant that generates: a treatment at one strength, or a control of one."""

    treatment: str
    variant: Variant
    alpha: float = float("nan")
    is_control: bool = False


UNSTEERED = _Strength(ORIGINAL.name, ORIGINAL, alpha=0.0)


@dataclass(frozen=True)
class _Cached:
    """Activations of the prompts and what follows from them, computed once for each hook."""

    model: Model
    prompts: Sequence[Prompt]
    found: dict[str, Activations]
    template: TemplateSpec
    sae: SAE[Any] | None
    """Decides how plain prompts begin."""
    spec: GenerateSettings
    scales: dict[str, Scale] = field(default_factory=dict)
    drawn: dict[str, Vectors] = field(default_factory=dict)

    def at(self, hook_name: str) -> Activations:
        """Activations of all tokens at a hook."""
        if hook_name not in self.found:
            how: dict[str, Any] = {**self.template.options, "special_tokens": self.sae}
            cached = cache_activations(self.model, self.prompts, hook_name=hook_name, **how)
            self.found[hook_name] = cached
        return self.found[hook_name]

    def scale(self, hook_name: str) -> Scale:
        """Mean ‖x‖ at a hook."""
        if hook_name not in self.scales:
            self.scales[hook_name] = measured_scale(self.at(hook_name))
        return self.scales[hook_name]

    def controls(self, hook_name: str) -> Vectors:
        """Random unit vectors of the covariance family at a hook."""
        if hook_name not in self.drawn:
            width, n, seed = hook_width(self.model, hook_name), self.spec.controls, self.spec.seed
            how: dict[str, Any] = {"d_model": width, "seed": seed, "vectors": self.at(hook_name)}
            self.drawn[hook_name] = draw_controls("covariance", n, **how)
        return self.drawn[hook_name]


def _given(
    model: Model,
    placed: Sequence[Placed],
    activations: Activations | None,
    start: TextStart | None,
) -> dict[str, Activations]:
    """The given activations by their hook. Raises InputError unless something steers there."""
    if activations is None:
        return {}
    hooks = sorted({hook for one in placed for hook in one.at})
    places = same_places(activations.hook_name)
    hook = next((hook for hook in hooks if hook in places), None)
    if hook is None:
        raise InputError(
            f"the activations were cached at {activations.hook_name}, and the treatments are at "
            f"{', '.join(hooks)}: cache activations there, or leave out activations="
        )
    check_activations(activations, model, hook, start)
    return {hook: activations}


def _comparison(
    model: Model,
    prompts: Sequence[Prompt],
    placed: Sequence[Placed],
    metrics: MetricsLike,
    spec: CompareEditsSettings,
    template: TemplateSpec,
    decides: SAE[Any] | None,
) -> EditComparison:
    """The comparison of the treatments as they are, checked. `decides`: how plain text begins."""
    tokenizer, sae = tokenizer_of(model), only_sae(placed)
    encoded = encode_prompts(tokenizer, prompts, template, decides)
    strengths = len(spec.alphas) if isinstance(spec, GenerateSettings) else 1
    n_variants = sum(strengths if one.has_strength else 1 for one in placed)
    check_comparable(model, encoded, spec, n_variants)
    resolved = resolve_metrics(metrics, tokenizer, model.cfg.d_vocab, str(model.cfg.device))
    check_starts(resolved, encoded)
    return EditComparison(model, encoded, [one.variant() for one in placed], resolved, spec, sae)


def _strengths(one: Placed, cached: _Cached) -> Iterator[_Strength]:
    """The treatment at each strength; an edit has one of its own."""
    unit = cached.spec.alpha_unit
    if not one.has_strength:
        yield _Strength(one.name, one.variant())
        return

    def scaled(alpha: float) -> Callable[[str, Direction], Direction]:
        def of(hook: str, vector: Direction) -> Direction:
            scale = cached.scale(hook) if unit == "resid_norm" else NO_SCALE
            return alpha * scaled_vectors(vector[None], [None], unit, scale)[0]

        return of

    for alpha in cached.spec.alphas:
        yield _Strength(one.name, one.variant(scaled(alpha)), alpha)


def _controls_of(one: _Strength, cached: _Cached) -> Iterator[_Strength]:
    """Random pushes with the ‖Δx‖ of the variant at each hook and token, and the sign of α."""
    sign = -1.0 if one.alpha < 0 else 1.0
    for i in range(cached.spec.controls):
        edits: dict[str, tuple[Edit, ...]] = {
            hook: (MatchedPush.of(sign * cached.controls(hook)[i], _chain(chain)),)
            for hook, chain in one.variant.edits.items()
        }
        name = f"random {i + 1} for {one.treatment}"
        yield _Strength(name, Variant(name, edits), one.alpha, is_control=True)


def _chain(edits: Sequence[Edit]) -> Edit:
    """Several edits in order as one."""
    chain = composed(edits)
    if len(chain) == 1:
        return chain[0]

    def act(x: torch.Tensor) -> torch.Tensor:
        for edit in chain:
            x = edit(x)
        return x

    pointwise = all(edit.pointwise for edit in chain)
    return Edit("; ".join(e.name for e in chain), act, pointwise, **of_parts(chain))
