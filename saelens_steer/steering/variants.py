"""Variants of a model: named lists of edits, at one hook or several, as a config states them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sae_lens import SAE

from saelens_steer.config import EditSpec
from saelens_steer.errors import InputError, or_known
from saelens_steer.features import NO_SCALE, Scale
from saelens_steer.model import hook_layer, same_places
from saelens_steer.sae import check_feature
from saelens_steer.steering.apply import steered
from saelens_steer.steering.builders import EditContext, Target, build_edit
from saelens_steer.steering.directions import scaled_vectors
from saelens_steer.steering.edits import Edit
from saelens_steer.steering.sae_edits import SAEEdit, composed


@dataclass(frozen=True)
class Variant:
    """Named edits: hook → edits in order, and the features they name."""

    name: str
    edits: Mapping[str, tuple[Edit, ...]]
    features: tuple[int, ...] = ()

    @property
    def label(self) -> str:
        """The names of the edits, in order."""
        return "; ".join(edit.name for edits in self.edits.values() for edit in composed(edits))

    @contextlib.contextmanager
    def applied(self, model: Any, **where: Any) -> Iterator[None]:
        """Steer at every hook of the variant, as `steered` does with `where`."""
        with contextlib.ExitStack() as stack:
            for hook_name, edits in self.edits.items():
                stack.enter_context(steered(model, edits, hook_name, **where))
            yield


def variant_of(name: str, edits: Edit | Sequence[Edit], hook_name: str) -> Variant:
    """Edits at one hook as a variant. Raises InputError if there are none or they conflict."""
    given = (edits,) if isinstance(edits, Edit) else tuple(edits)
    if not given:
        raise InputError(f"variant {name!r} has no edit")
    changes = [c for edit in composed(given) if isinstance(edit, SAEEdit) for c in edit.changes]
    features = dict.fromkeys(f for change in changes for f in change.features)
    return Variant(name, {hook_name: given}, tuple(features))


@dataclass(frozen=True)
class EditInputs:
    """What a config's edits refer to: the SAE, the run's hook, its candidates and its scale."""

    sae: SAE[Any]
    hook_name: str
    candidates: Mapping[str, Sequence[int]]
    """Domain → candidate features, best first."""
    scale: Scale = NO_SCALE
    context: EditContext | None = None
    """None: the SAE alone."""

    def features(self, given: str | Sequence[int], top: int) -> list[int]:
        """The features a spec means. Raises InputError for an unknown domain or feature."""
        if not isinstance(given, str):
            return [check_feature(self.sae, f) for f in given]
        if given not in self.candidates:
            raise InputError(
                f"there are no candidates of {given!r}; {or_known(given, self.candidates)}"
            )
        if not (found := list(self.candidates[given][:top])):
            raise InputError(f"selection found no feature for {given!r}: name features by index")
        return found

    def build(self, spec: EditSpec, features: Sequence[int]) -> Edit:
        """The edit at the strength that the spec states."""
        options, rows = spec.options, self.sae.W_dec[list(features)].detach().float()
        amount = getattr(options, options.GIVEN_AS) if options.GIVEN_AS else 1.0
        if options.strength == "push":
            rows = scaled_vectors(rows, [*features], options.strength_unit, self.scale)
        elif options.strength_unit == "max_act":
            amount = [amount * self.scale.a_max(f) for f in features]
        target = Target(spec.kind, rows, tuple(features))
        return build_edit(spec, target, amount, self.context or EditContext(self.sae))


def build_variant(name: str, specs: Sequence[EditSpec], known: EditInputs) -> Variant:
    """The variant of a config; edits at one hook apply in order. Raises InputError on conflicts."""
    edits: dict[str, tuple[Edit, ...]] = {}
    features: list[int] = []
    for spec in specs:
        options = spec.options
        named = known.features(options.features, options.top) if options.features else []
        hook_name = _place(options.hook_name or known.hook_name, known.hook_name, edits)
        edits[hook_name] = (*edits.get(hook_name, ()), known.build(spec, named))
        features += named
    for at_hook in edits.values():
        composed(at_hook)  # conflicts are found before any forward pass
    in_order = dict(sorted(edits.items(), key=lambda item: hook_layer(item[0])))
    return Variant(name, in_order, tuple(dict.fromkeys(features)))


def _place(hook_name: str, own: str, used: Iterable[str]) -> str:
    """One name for one place: the run's hook, that of an earlier edit, or the name itself."""
    return next((name for name in (own, *used) if name in same_places(hook_name)), hook_name)
