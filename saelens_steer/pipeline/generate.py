"""Texts of a model with and without edits, side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import torch
from sae_lens import SAE
from torch import Tensor

from saelens_steer.activations import Activations, cache_activations
from saelens_steer.config import (
    CompareEditsSettings,
    GenerateSettings,
    TemplateSpec,
    checked,
    template_of,
)
from saelens_steer.data import Prompt, PromptLike, encode_prompts
from saelens_steer.directions import draw_controls
from saelens_steer.errors import InputError
from saelens_steer.features import Scale, measured_scale
from saelens_steer.metrics import MetricsLike, check_starts, resolve_metrics
from saelens_steer.model import check_steerable, hook_width
from saelens_steer.model.model_class import Model, tokenizer_of
from saelens_steer.pipeline.arguments import given_prompts
from saelens_steer.pipeline.texts import Texts
from saelens_steer.progress import progress
from saelens_steer.sae import check_sae, steers_at
from saelens_steer.steering import Edit, SAEEdit, Variant, add, composed, scaled_vectors
from saelens_steer.sweeps import (
    ORIGINAL,
    EditComparison,
    MatchedPush,
    check_comparable,
    edits_table,
)
from saelens_steer.tensors import VectorLike, Vectors, as_vectors

Treatment = Edit | Sequence[Edit] | VectorLike
"""What is done at one hook: an edit, several in order, or a vector to push along."""


def generate(
    model: Model,
    prompts: Sequence[PromptLike],
    treatments: Mapping[str, Treatment | Mapping[str, Treatment]],
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
    """Generate without steering, with each treatment, and with random controls of the same size.

    `treatments`: name → a vector [d_model], which is pushed along at each of `alphas`; an edit or
    several in order, which have their strength already; or a mapping of hooks to these.
    `hook_name`: the hook of treatments that name none; edits of an SAE know theirs. `controls`:
    random directions of the covariance family per treatment and strength, each with the same ‖Δx‖
    at each token. `activations`: at the hook, for the controls and for mean ‖x‖; by default those
    of the prompts are cached. GenerateSettings documents the other arguments,
    TemplateSpec `chat` and the options after it.

    Returns one row per prompt × variant × sample, the unsteered `original` first, with the columns
    of `compare_edits`, alpha (NaN for edits) and control (whether it is a random one). Raises
    InputError before any forward pass.
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
    placed = _placed(model, treatments, hook_name)
    cached = _Cached(model, listed, activations, template)
    job = _comparison(model, listed, placed, metrics, spec, template)
    job = replace(job, temperature=spec.temperature, samples=spec.samples, seed=spec.seed)
    written = [
        each
        for one in placed
        for strong in _strengths(one, spec, cached)
        for each in (strong, *_controls_of(strong, spec, cached))
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
    variants: Mapping[str, Treatment | Mapping[str, Treatment]],
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
    mapping of hooks to these edits at several hooks at once. CompareEditsSettings documents the
    settings, TemplateSpec `chat` and the options after it. Columns as in `edits_table`, with
    activations if all edits use the same SAE. Raises InputError before any forward pass.
    """
    given = {
        "positions": positions, "exclude_special_tokens": exclude_special_tokens,
        "max_norm": max_norm, "max_new_tokens": max_new_tokens, "batch_size": batch_size,
    }  # fmt: skip
    spec = checked(CompareEditsSettings, given, "compare_edits")
    placed = _placed(model, variants, hook_name)
    reading = (chat, system, add_generation_prompt, chat_template_kwargs)
    template, listed = template_of("compare_edits", *reading), given_prompts(model, prompts)
    job = _comparison(model, listed, placed, metrics, spec, template)
    with progress("compare_edits", job.n_rows) as note:
        return Texts(edits_table(job, note).drop(columns="sample"))


@dataclass(frozen=True)
class _Placed:
    """A treatment: hook → edits in order, or the vector to push along."""

    name: str
    at: Mapping[str, tuple[Edit, ...] | Vectors]

    def variant(self, scaled: Callable[[str, Vectors], Vectors] = lambda _, v: v) -> Variant:
        """The variant of the model, with each vector as `scaled` gives it."""
        edits = {
            hook: (add(scaled(hook, each).sum(0)),) if isinstance(each, Tensor) else each
            for hook, each in self.at.items()
        }
        changed = [
            f for chain in edits.values() for edit in composed(chain) for f in _changed(edit)
        ]
        return Variant(self.name, edits, tuple(dict.fromkeys(changed)))

    @property
    def has_strength(self) -> bool:
        """Whether α multiplies something in it: a vector at some hook."""
        return any(isinstance(each, Tensor) for each in self.at.values())


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
    """Activations of the prompts, cached at a hook once something needs them."""

    model: Model
    prompts: Sequence[Prompt]
    given: Activations | None
    template: TemplateSpec

    @cached_property
    def _found(self) -> dict[str, Activations]:
        return {} if self.given is None else {self.given.hook_name: self.given}

    def at(self, hook_name: str) -> Activations:
        """Activations of all tokens at a hook."""
        if hook_name not in self._found:
            self._found[hook_name] = cache_activations(
                self.model, self.prompts, hook_name=hook_name, **self.template.options
            )
        return self._found[hook_name]

    def scale(self, hook_name: str) -> Scale:
        """Mean ‖x‖ at a hook."""
        return measured_scale(self.at(hook_name))


def _placed(
    model: Model,
    treatments: Mapping[str, Treatment | Mapping[str, Treatment]],
    hook_name: str | None,
) -> list[_Placed]:
    """The treatments by hook. Raises InputError for one that cannot be applied."""
    if not isinstance(treatments, Mapping):
        raise InputError('give edits and vectors by name, such as {"push": ss.add(vector, 2.0)}')
    if ORIGINAL.name in treatments:
        raise InputError("a variant cannot be called 'original', the name of the unedited model")
    placed = []
    for name, given in treatments.items():
        by_hook = given if isinstance(given, Mapping) else {_hook(name, given, hook_name): given}
        if not by_hook:
            raise InputError(f"variant {name!r} has no edit")
        at = {
            check_steerable(model, hook): _parts(model, name, hook, one)
            for hook, one in by_hook.items()
        }
        placed.append(_Placed(str(name), at))
    return placed


def _hook(name: str, given: Treatment, hook_name: str | None) -> str:
    """The hook of a treatment that names none."""
    edits = [given] if isinstance(given, Edit) else given if isinstance(given, list | tuple) else []
    known = {
        steers_at(edit.sae) for edit in edits if isinstance(edit, SAEEdit) and edit.sae is not None
    }
    if hook_name is None and len(known) == 1 and None not in known:
        return str(known.pop())
    if hook_name is None:
        raise InputError(f"{name!r} does not say where it steers: give hook_name=")
    return hook_name


def _parts(model: Model, name: str, hook: str, given: Treatment) -> tuple[Edit, ...] | Vectors:
    """The edits in order, or the vectors [n, d_model], whose sum is pushed along."""
    check_steerable(model, hook)
    if isinstance(given, Edit):
        given = (given,)
    if not isinstance(given, list | tuple):
        vectors: Any = given
        return as_vectors(name, vectors, hook_width(model, hook))
    if not given:
        raise InputError(f"variant {name!r} has no edit")
    if not all(isinstance(edit, Edit) for edit in given):
        raise InputError(f"{name!r} should be a vector, an Edit, or a list of edits")
    edits = tuple(given)
    for edit in composed(edits):  # raises if they conflict
        if isinstance(edit, SAEEdit) and edit.sae is not None:
            check_sae(edit.sae, model, hook)
    return edits


def _changed(edit: Edit) -> tuple[int, ...]:
    return tuple(edit.features) if isinstance(edit, SAEEdit) else ()


def _comparison(
    model: Model,
    prompts: Sequence[Prompt],
    placed: Sequence[_Placed],
    metrics: MetricsLike,
    spec: CompareEditsSettings,
    template: TemplateSpec,
) -> EditComparison:
    """The comparison of the treatments as they are, checked."""
    tokenizer, sae = tokenizer_of(model), _only_sae(placed)
    encoded = encode_prompts(tokenizer, prompts, template, sae)
    check_comparable(model, encoded, spec)
    resolved = resolve_metrics(metrics, tokenizer, model.cfg.d_vocab, str(model.cfg.device))
    check_starts(resolved, encoded)
    return EditComparison(model, encoded, [one.variant() for one in placed], resolved, spec, sae)


def _only_sae(placed: Sequence[_Placed]) -> SAE[Any] | None:
    """The SAE that all SAE edits share, or None."""
    chains = [each for one in placed for each in one.at.values() if not isinstance(each, Tensor)]
    edits = [edit for chain in chains for edit in chain if isinstance(edit, SAEEdit)]
    saes = {id(edit.sae): edit.sae for edit in edits if edit.sae is not None}
    return next(iter(saes.values())) if len(saes) == 1 else None


def _strengths(one: _Placed, spec: GenerateSettings, cached: _Cached) -> Iterator[_Strength]:
    """The treatment at each strength; an edit has one of its own."""
    if not one.has_strength:
        yield _Strength(one.name, one.variant())
        return

    def scaled(alpha: float) -> Callable[[str, Vectors], Vectors]:
        def of(hook: str, vectors: Vectors) -> Vectors:
            total = vectors.sum(0, keepdim=True)
            if spec.alpha_unit == "raw":
                return alpha * total
            scale = cached.scale(hook) if spec.alpha_unit == "resid_norm" else Scale()
            return alpha * scaled_vectors(total, [None], spec.alpha_unit, scale)

        return of

    for alpha in spec.alphas:
        yield _Strength(one.name, one.variant(scaled(alpha)), alpha)


def _controls_of(one: _Strength, spec: GenerateSettings, cached: _Cached) -> Iterator[_Strength]:
    """Random pushes with the ‖Δx‖ of the variant at each hook and token, and the sign of α."""
    sign = -1.0 if one.alpha < 0 else 1.0
    drawn = {
        hook: draw_controls(
            "covariance",
            spec.controls,
            d_model=hook_width(cached.model, hook),
            seed=spec.seed,
            vectors=cached.at(hook),
        )
        for hook in one.variant.edits
        if spec.controls
    }
    for i in range(spec.controls):
        edits: dict[str, tuple[Edit, ...]] = {
            hook: (MatchedPush.of(sign * drawn[hook][i], _chain(chain)),)
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

    return Edit("; ".join(e.name for e in chain), act, all(e.pointwise for e in chain))
