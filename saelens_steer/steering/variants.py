"""Variants of a model: named lists of edits, at one hook or several, as a config states them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sae_lens import SAE

from saelens_steer.config import (
    AblateSpec,
    AddSpec,
    EditSpec,
    ProjectOutSpec,
    ReconstructSpec,
    ScaleSpec,
    SetSpec,
    SuppressAndBoostSpec,
)
from saelens_steer.errors import InputError, or_known
from saelens_steer.features import NO_SCALE, Scale
from saelens_steer.model import hook_layer, same_places
from saelens_steer.sae import check_feature
from saelens_steer.steering.apply import steered
from saelens_steer.steering.directions import scaled_vectors
from saelens_steer.steering.edits import Edit, add, project_out
from saelens_steer.steering.sae_edits import (
    SAEEdit,
    ablate,
    composed,
    reconstruct,
    scale,
    set_to,
    suppress_and_boost,
)


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
    """The SAE, hook, candidates and scale that a config's edits refer to."""

    sae: SAE[Any]
    hook_name: str
    candidates: Mapping[str, Sequence[int]]
    """Domain → candidate features, best first."""
    scale: Scale = NO_SCALE

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

    def sizes(self, value: float, unit: str, features: Sequence[int]) -> float | list[float]:
        """`value` in units of z: one number for all features, or one for each."""
        if unit == "raw":
            return value
        return [value * self.scale.a_max(f) for f in features]


def build_variant(name: str, specs: Sequence[EditSpec], known: EditInputs) -> Variant:
    """The variant of a config; edits at one hook apply in order. Raises InputError on conflicts."""
    edits: dict[str, tuple[Edit, ...]] = {}
    features: list[int] = []
    for spec in specs:
        inner = spec.inner
        named = [] if spec.reconstruct else known.features(inner.features, inner.top)
        hook_name = _place(inner.hook_name or known.hook_name, known.hook_name, edits)
        edits[hook_name] = (*edits.get(hook_name, ()), BUILDERS[spec.kind](inner, named, known))
        features += named
    for at_hook in edits.values():
        composed(at_hook)  # conflicts are found before any forward pass
    in_order = dict(sorted(edits.items(), key=lambda item: hook_layer(item[0])))
    return Variant(name, in_order, tuple(dict.fromkeys(features)))


def _place(hook_name: str, own: str, used: Iterable[str]) -> str:
    """One name for one place: the run's hook, that of an earlier edit, or the name itself."""
    return next((name for name in (own, *used) if name in same_places(hook_name)), hook_name)


def _add(spec: AddSpec, features: list[int], known: EditInputs) -> Edit:
    rows = known.sae.W_dec[features].detach().float()
    vectors = scaled_vectors(rows, [*features], spec.alpha_unit, known.scale)
    return add(vectors.sum(0), spec.alpha)


def _project_out(spec: ProjectOutSpec, features: list[int], known: EditInputs) -> Edit:  # noqa: ARG001
    return project_out(known.sae.W_dec[features])


def _ablate(spec: AblateSpec, features: list[int], known: EditInputs) -> Edit:
    return ablate(known.sae, features, spec.error)


def _scale(spec: ScaleSpec, features: list[int], known: EditInputs) -> Edit:
    return scale(known.sae, features, spec.factor, spec.error)


def _set(spec: SetSpec, features: list[int], known: EditInputs) -> Edit:
    return set_to(known.sae, features, known.sizes(spec.value, spec.unit, features), spec.error)


def _suppress_and_boost(spec: SuppressAndBoostSpec, features: list[int], known: EditInputs) -> Edit:
    boosts = known.sizes(spec.boost, spec.unit, features)
    return suppress_and_boost(known.sae, features, boosts, spec.suppress, spec.error)


def _reconstruct(spec: ReconstructSpec, features: list[int], known: EditInputs) -> Edit:  # noqa: ARG001
    return reconstruct(known.sae, spec.error)


BUILDERS: Mapping[str, Any] = {
    "add": _add,
    "project_out": _project_out,
    "ablate": _ablate,
    "scale": _scale,
    "set": _set,
    "suppress_and_boost": _suppress_and_boost,
    "reconstruct": _reconstruct,
}
"""Key of an EditSpec → the function that makes the edit."""
