"""Edits and vectors as callers give them, by the hook where they act."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sae_lens import SAE
from torch import Tensor

from saelens_steer.errors import InputError
from saelens_steer.model import check_steerable, hook_width
from saelens_steer.model.model_class import Model
from saelens_steer.sae import check_sae, steers_at
from saelens_steer.steering import Edit, SAEEdit, Variant, add, composed
from saelens_steer.sweeps import ORIGINAL
from saelens_steer.tensors import VectorLike, Vectors, as_vectors

EditLike = Edit | Sequence[Edit] | VectorLike
"""What is done at one hook: an edit, several in order, or a vector to push along."""


@dataclass(frozen=True)
class Placed:
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


def placed_edits(
    model: Model,
    treatments: Mapping[str, EditLike | Mapping[str, EditLike]],
    hook_name: str | None,
) -> list[Placed]:
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
        placed.append(Placed(str(name), at))
    return placed


def _hook(name: str, given: EditLike, hook_name: str | None) -> str:
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


def _parts(model: Model, name: str, hook: str, given: EditLike) -> tuple[Edit, ...] | Vectors:
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


def only_sae(placed: Sequence[Placed]) -> SAE[Any] | None:
    """The SAE that all SAE edits share, or None."""
    chains = [each for one in placed for each in one.at.values() if not isinstance(each, Tensor)]
    edits = [edit for chain in chains for edit in chain if isinstance(edit, SAEEdit)]
    saes = {id(edit.sae): edit.sae for edit in edits if edit.sae is not None}
    return next(iter(saes.values())) if len(saes) == 1 else None
