"""Arguments of the public functions, checked before any forward pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from sae_lens import SAE
from transformers import PreTrainedTokenizerBase

from saelens_steer.activations import Activations
from saelens_steer.config import SweepSpec
from saelens_steer.data import Prompt, PromptLike, TextStart, as_prompts
from saelens_steer.errors import InputError
from saelens_steer.evidence import lacking_controls
from saelens_steer.model import check_steerable, default_hook_name, hook_width, same_places
from saelens_steer.model.model_class import Model, tokenizer_of
from saelens_steer.numbers import count
from saelens_steer.progress import say
from saelens_steer.sae import check_sae, is_transcoder, steers_at
from saelens_steer.steering import CANDIDATE, Directions, SteeringVectors

FEWEST, MANY = 100, 10_000
"""Covariance controls should come from at least so many different tokens; more than MANY are not
counted."""


def hook_without_sae(model: Model, hook_name: str | None, directions: object) -> str:
    """The hook to steer: the given one, or the only one of vectors that name theirs."""
    if hook_name is None:
        held = directions.hook_names if isinstance(directions, SteeringVectors) else {}
        hooks = sorted(set(held.values()))
        if not hooks or any(hook not in same_places(hooks[0]) for hook in hooks):
            why = f"the vectors are at {', '.join(hooks)}" if hooks else "sae is None"
            raise InputError(
                f"{why}: give hook_name=, such as {default_hook_name(model)!r}, to say where the "
                "directions are added"
            )
        hook_name = hooks[0]
    return check_steerable(model, hook_name)


def hook_of(model: Model, sae: SAE[Any], hook_name: str | None) -> str:
    """The hook to steer: the given one, or the one that the SAE's decoder writes at.

    Raises InputError unless the SAE fits there.
    """
    if not isinstance(sae, SAE):
        raise InputError(f"sae should be a SAELens SAE, not {type(sae).__name__}: use load_sae")
    named = hook_name or steers_at(sae)
    if named is None:
        what = "where it writes" if is_transcoder(sae) else "which hook it reads"
        raise InputError(
            f"the SAE does not say {what}: give it as hook_name=, "
            f"for example {default_hook_name(model)!r}"
        )
    found = check_steerable(model, named)
    check_sae(sae, model, found)
    return found


def given_prompts(model: Model, prompts: Sequence[PromptLike]) -> list[Prompt]:
    """The prompts, as in `as_prompts`.

    Raises InputError if there are none, or if two have the same id, by which tables name them.
    """
    if not (found := as_prompts(tokenizer_of(model), prompts)):
        raise InputError("prompts is empty: give at least one prompt, such as a string")
    seen: dict[str, int] = {}
    for number, prompt in enumerate(found):
        if (other := seen.setdefault(prompt.id, number)) != number:
            raise InputError(
                f"prompts[{other}] and prompts[{number}] have the same id {prompt.id!r}: give "
                "one of them a different id"
            )
    return found


def check_activations(
    activations: Activations, model: Model, hook_name: str, start: TextStart | None
) -> None:
    """Raise InputError unless these are of this hook of the model, on texts that begin alike."""
    if activations.hook_name not in same_places(hook_name):
        raise InputError(
            f"the activations were cached at {activations.hook_name}, not at {hook_name}: "
            "cache them at that hook"
        )
    if activations.d_model != (width := hook_width(model, hook_name)):
        raise InputError(
            f"the activations are {activations.d_model} wide, but the model's are {width} wide at "
            f"{hook_name}: cache them on this model"
        )
    check_start(activations, start, tokenizer_of(model))


def say_untestable(everything: Directions) -> None:
    """Say before a sweep that its controls are too few for a claim, unless there are to be none."""
    families = everything.families
    controls = [i for i, family in enumerate(families) if family != CANDIDATE]
    sets = Counter(
        (everything.sizes[i], everything.matched_to[i])
        for i in controls
        if families[i] == families[controls[0]]
    )
    if sets and (why := lacking_controls(families.count(CANDIDATE), min(sets.values()))):
        say(f"warning: {why}, so no effect will be testable: raise n_controls (sweep.n_controls)")


def few_tokens(spec: SweepSpec, activations: Activations | None) -> tuple[str, ...]:
    """A warning if covariance controls come from so few tokens that they may all be alike."""
    if activations is None or "covariance" not in spec.families:
        return ()
    if len(activations) >= MANY or (n := len(activations.vectors.unique(dim=0))) >= FEWEST:
        return ()
    warning = (
        f"The covariance controls come from only {count(n, 'different token')}, so they may be "
        f"alike, and verdicts too favourable: give activations of at least {FEWEST} tokens "
        "(select.prompts), or controls='isotropic' (sweep.controls)."
    )
    say(f"warning: {warning}")
    return (warning,)


def check_start(
    activations: Activations, start: TextStart | None, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Raise InputError if plain prompts begin differently from those that were cached."""
    cached = activations.begins
    if start is None or cached is None or cached == list(start.ids):
        return
    had, have = (tokenizer.convert_ids_to_tokens(list(ids)) for ids in (cached, start.ids))
    raise InputError(
        f"the activations are of texts that begin with {had}, but the prompts begin with {have}: "
        f"cache them with cache_activations(…, special_tokens={'sae' if start.of_sae else None})"
    )
