"""Arguments of the public functions, checked before any forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sae_lens import SAE

from saelens_steer.activations import Activations
from saelens_steer.data import Prompt, as_prompts
from saelens_steer.errors import InputError
from saelens_steer.model import check_stream, default_hook_name, same_places
from saelens_steer.model.model_class import Model
from saelens_steer.sae import check_feature, check_sae


def hook_of(model: Model, sae: SAE[Any], hook_name: str | None) -> str:
    """The given hook, or the SAE's own. Raises InputError unless the SAE fits there."""
    if not isinstance(sae, SAE):
        raise InputError(f"sae should be a SAELens SAE, not {type(sae).__name__}: use load_sae")
    named = hook_name or sae.cfg.metadata.hook_name
    if named is None:
        raise InputError(
            "the SAE does not say which hook it reads: give hook_name=, such as "
            f"{default_hook_name(model)!r}, if it was trained there"
        )
    found = check_stream(model, str(named))
    check_sae(sae, model, found)
    return found


def given_prompts(prompts: Sequence[Prompt | str]) -> list[Prompt]:
    """The prompts. Raises InputError if there are none, or if one has no text."""
    if not (found := as_prompts(prompts)):
        raise InputError("prompts is empty: give at least one Prompt or string")
    for number, prompt in enumerate(found):
        if not isinstance(prompt, Prompt):
            kind = type(prompt).__name__
            raise InputError(f"prompts[{number}] is a {kind}: it should be a Prompt or a string")
        if not prompt.text.strip():
            raise InputError(f"prompts[{number}] has no text: leave it out")
    return found


def given_features(sae: SAE[Any], features: int | Sequence[int]) -> list[int]:
    """The features as Python integers. Raises InputError if one is not an index of the SAE."""
    listed: Any = features.tolist() if hasattr(features, "tolist") else features  # type: ignore[union-attr]
    return [_index(sae, f) for f in (listed if isinstance(listed, Sequence) else [listed])]


def _index(sae: SAE[Any], feature: Any) -> int:
    plain = feature.tolist() if hasattr(feature, "tolist") else feature
    if not isinstance(plain, int) or isinstance(plain, bool):
        raise InputError(f"features: {plain!r} is a {type(plain).__name__}, not an index")
    return check_feature(sae, plain)


def check_activations(activations: Activations, d_model: int, hook_name: str) -> None:
    """Raise InputError unless these are activations of this hook, d_model wide."""
    if activations.hook_name not in same_places(hook_name):
        raise InputError(
            f"the activations are of {activations.hook_name}, not of {hook_name}: cache them there"
        )
    if activations.d_model != d_model:
        raise InputError(
            f"the activations are {activations.d_model} wide, and the model's d_model is {d_model}:"
            " cache them on this model"
        )
