"""Edits and vectors as callers give them, by the hook where they act."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sae_lens import SAE
from torch import Tensor

from saelens_steer.config import TemplateSpec
from saelens_steer.data import Prompt, any_plain, trained_with_bos
from saelens_steer.errors import InputError
from saelens_steer.model import check_steerable, hook_width
from saelens_steer.model.model_class import Model, tokenizer_of
from saelens_steer.sae import check_sae, steers_at
from saelens_steer.steering import Edit, SAEEdit, Variant, add, composed, of_parts
from saelens_steer.sweeps import ORIGINAL
from saelens_steer.tensors import Direction, VectorLike, as_direction

EditLike = Edit | Sequence[Edit] | VectorLike
"""What is done at one hook: an edit, several in order, or a vector to push along."""


@dataclass(frozen=True)
class Placed:
    """A treatment: hook → edits in order, or the vector to push along."""

    name: str
    at: Mapping[str, tuple[Edit, ...] | Direction]

    def variant(self, scaled: Callable[[str, Direction], Direction] = lambda _, v: v) -> Variant:
        """The variant of the model, with each vector as `scaled` gives it."""
        edits = {
            hook: (add(scaled(hook, each)),) if isinstance(each, Tensor) else each
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


def placed_edits(
    model: Model,
    treatments: Mapping[str, EditLike | Mapping[str, EditLike]],
    hook_name: str | None,
) -> list[Placed]:
    """The treatments by hook. Raises InputError for one that cannot be applied."""
    if not isinstance(treatments, Mapping):
        raise InputError('give edits and vectors by name, such as {"push": ss.add(vector, 2.0)}')
    if not treatments:
        raise InputError('there is nothing to apply: give {"push": ss.add(vector, 2.0)}')
    if ORIGINAL.name in treatments:
        raise InputError("a variant cannot be called 'original', the name of the unedited model")
    placed = []
    for name, given in treatments.items():
        if not isinstance(name, str):
            raise InputError(f'{name!r} is not a name: use strings, as in {{"push": vector}}')
        by_hook = given if isinstance(given, Mapping) else {_hook(name, given, hook_name): given}
        if not by_hook:
            raise InputError(f"variant {name!r} has no edit: leave it out")
        other = [hook for hook in by_hook if not isinstance(hook, str)]
        if other and by_hook is given:
            raise InputError(
                f"{name!r} is a mapping, but its key {other[0]!r} is not a hook. Give a vector, an "
                'edit, or {"blocks.4.hook_resid_pre": vector}'
            )
        placed.append(Placed(name, {h: _parts(model, name, h, one) for h, one in by_hook.items()}))
    return placed


def _hook(name: str, given: EditLike, hook_name: str | None) -> str:
    """The hook of a treatment that names none."""
    edits = [given] if isinstance(given, Edit) else given if isinstance(given, list | tuple) else []
    known = {steers_at(sae) for edit in edits if isinstance(edit, Edit) for sae in edit.saes}
    if hook_name is None and len(known) == 1 and None not in known:
        return str(known.pop())
    if hook_name is None:
        raise InputError(f"{name!r} does not say where it steers: give hook_name=")
    return hook_name


def _parts(model: Model, name: str, hook: str, given: EditLike) -> tuple[Edit, ...] | Direction:
    """The edits in order, or the vector to push along."""
    check_steerable(model, hook)
    if isinstance(given, Edit):
        given = (given,)
    if not isinstance(given, list | tuple):
        vector: Any = given
        return as_direction(repr(name), vector, hook_width(model, hook))
    if not given:
        raise InputError(f"variant {name!r} has no edit: leave it out")
    if not all(isinstance(edit, Edit) for edit in given):
        raise InputError(f"{name!r} should be a vector, an Edit, or a list of edits")
    edits = tuple(given)
    for edit in (chain := composed(edits)):  # raises if they conflict
        edit.check_width(hook_width(model, hook))
    for sae in of_parts(chain)["saes"]:
        check_sae(sae, model, hook)
    return edits


def _changed(edit: Edit) -> tuple[int, ...]:
    return tuple(edit.features) if isinstance(edit, SAEEdit) else ()


def only_sae(placed: Sequence[Placed]) -> SAE[Any] | None:
    """The SAE that all SAE edits share, or None."""
    saes = of_parts([edit for edit in _edits(placed) if isinstance(edit, SAEEdit)])["saes"]
    return saes[0] if len(saes) == 1 else None


def sae_of_starts(
    model: Model, prompts: Sequence[Prompt], template: TemplateSpec, placed: Sequence[Placed]
) -> SAE[Any] | None:
    """The SAE that decides how plain prompts begin; None if no SAE states it.

    Raises InputError if two SAEs were trained on contexts that begin differently.
    """
    stated = {trained_with_bos(sae): sae for sae in of_parts(_edits(placed))["saes"]}
    stated.pop(None, None)
    if len(stated) > 1 and any_plain(tokenizer_of(model), prompts, template):
        raise InputError(
            "plain text would begin with BOS for one SAE and without it for another, as their "
            "training contexts did: use a separate call for each SAE, or token ids as prompts"
        )
    return next(iter(stated.values()), None)


def _edits(placed: Sequence[Placed]) -> list[Edit]:
    """All edits of the treatments."""
    chains = [each for one in placed for each in one.at.values() if not isinstance(each, Tensor)]
    return [edit for chain in chains for edit in chain]
