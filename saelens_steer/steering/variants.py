"""Variants of a model: named lists of edits, at one or more hooks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sae_lens import SAE

from saelens_steer.config import EditSpec
from saelens_steer.errors import InputError, or_known
from saelens_steer.features import NO_SCALE, Scale
from saelens_steer.model import hook_layer, same_places
from saelens_steer.sae import check_feature
from saelens_steer.steering.apply import steered_shares
from saelens_steer.steering.builders import EditContext, Target, build_edit
from saelens_steer.steering.directions import scaled_vectors
from saelens_steer.steering.edits import Edit
from saelens_steer.steering.sae_edits import composed


@dataclass(frozen=True)
class Variant:
    """A name, edits in order by hook, and the features they change."""

    name: str
    edits: Mapping[str, tuple[Edit, ...]]
    features: tuple[int, ...] = ()

    @property
    def label(self) -> str:
        """The names of the edits, in order."""
        return "; ".join(edit.name for edits in self.edits.values() for edit in composed(edits))

    def applied(self, model: Any, **where: Any) -> contextlib.AbstractContextManager[None]:
        """Steer at every hook of the variant; `where` are keywords of `steered`."""
        return stacked(model, [(slice(None), self)], **where)


@contextlib.contextmanager
def stacked(model: Any, variants: Sequence[tuple[slice, Variant]], **where: Any) -> Iterator[None]:
    """Steer rows of a batch by variants of their own; `where` are keywords of `steered`."""
    hooks = dict.fromkeys(hook for _, variant in variants for hook in variant.edits)
    with contextlib.ExitStack() as stack:
        for hook in hooks:
            own = [(rows, each.edits[hook]) for rows, each in variants if hook in each.edits]
            stack.enter_context(steered_shares(model, own, hook, **where))
        yield


@dataclass(frozen=True)
class EditInputs:
    """What the edits of a config refer to: features by domain, their scale, further inputs."""

    sae: SAE[Any]
    hook_name: str
    candidates: Mapping[str, Sequence[int]]
    """Domain → candidate features, best first."""
    scale: Scale = NO_SCALE
    context: EditContext | None = None
    """None if edits read only the SAE."""

    def features(self, named: str | Sequence[int], top: int) -> list[int]:
        """Features by index, or a domain's best. Raises InputError if one is unknown."""
        if not isinstance(named, str):
            return [check_feature(self.sae, f) for f in named]
        if named not in self.candidates:
            raise InputError(f"no candidates for {named!r}; {or_known(named, self.candidates)}")
        if not (found := list(self.candidates[named][:top])):
            raise InputError(f"selection found no feature for {named!r}: name features by index")
        return found

    def build(self, spec: EditSpec, features: Sequence[int]) -> Edit:
        """The edit at the strength in the spec."""
        options, rows = spec.options, self.sae.W_dec[list(features)].detach().float().cpu()
        amount = getattr(options, options.GIVEN_AS) if options.GIVEN_AS else 1.0
        if options.strength == "push":
            rows = scaled_vectors(rows, [*features], options.strength_unit, self.scale)
        elif options.strength_unit == "max_act":
            amount = [amount * self.scale.a_max(f) for f in features]
        target = Target(spec.kind, rows, tuple(features))
        return build_edit(spec, target, amount, self.context or EditContext(self.sae))


def build_variant(name: str, specs: Sequence[EditSpec], inputs: EditInputs) -> Variant:
    """Build a variant; edits at one hook apply in order. Raises InputError if they conflict."""
    edits: dict[str, tuple[Edit, ...]] = {}
    features: list[int] = []
    for spec in specs:
        options = spec.options
        named = inputs.features(options.features, options.top) if options.features else []
        places = same_places(options.hook_name or inputs.hook_name)
        known = (inputs.hook_name, *edits)  # one place may have several names
        hook_name = next((name for name in known if name in places), options.hook_name)
        edits[hook_name] = (*edits.get(hook_name, ()), inputs.build(spec, named))
        features += named
    for at_hook in edits.values():
        composed(at_hook)  # raises on conflicts, before any forward pass
    in_order = dict(sorted(edits.items(), key=lambda item: hook_layer(item[0])))
    return Variant(name, in_order, tuple(dict.fromkeys(features)))
