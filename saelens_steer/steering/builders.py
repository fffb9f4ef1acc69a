"""Build a config's edits: one builder per name in `config.EDITS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from saelens_steer.config import AddSpec, EditSpec
from saelens_steer.errors import InputError
from saelens_steer.files import digest
from saelens_steer.functions import function_version, imported
from saelens_steer.steering.edits import Edit, add, project_out
from saelens_steer.steering.gates import Gate
from saelens_steer.steering.sae_edits import ablate, reconstruct, scale, set_to, suppress_and_boost
from saelens_steer.tensors import Vectors

Amount = float | Sequence[float]
"""Strength: a multiple of the vectors, a factor, or a value of z (one per feature)."""


@dataclass(frozen=True)
class Target:
    """The directions that an edit acts along."""

    name: str
    vectors: Vectors
    """[n, d_model], scaled as α = 1 adds them."""
    features: tuple[int, ...] = ()
    """The features whose decoder rows these are; empty for other vectors."""


@dataclass(frozen=True)
class EditContext:
    """Inputs of edits besides their target."""

    sae: Any = None
    """A SAELens SAE, or None."""
    probe: Gate | None = None
    """Separates the steered prompts from the selection prompts."""
    domains: Vectors | None = None
    """Means of the other domains minus the mean of the two selection sides, [n, d_model]."""

    def check(self, edit: EditSpec, target: Target) -> None:
        """Raise InputError if the edit needs an input that is missing."""
        needs = edit.options.needs
        if "feature" in needs and not target.features:
            raise InputError(f"{edit.label} edits SAE features, and {target.name} is not one")
        missing = {
            "encoder": (self.sae, "an SAE"),
            "probe": (self.probe, "cached activations of other prompts, to fit the probe"),
            "domains": (self.domains, "selection prompts of further domains"),
        }
        for need, (value, description) in missing.items():
            if need in needs and value is None:
                raise InputError(f"{edit.label} needs {description}")


def build_edit(edit: EditSpec, target: Target, amount: Amount, context: EditContext) -> Edit:
    """Build an edit, with its key. Raises InputError if it does not apply to the target."""
    context.check(edit, target)
    built = BUILDERS[edit.kind](edit.options, target, amount, context)
    if not isinstance(built, Edit):
        raise InputError(f"{edit.label} returned {type(built).__name__}: return an Edit")
    source = function_version(edit.custom.function, "edit") if edit.custom else ""
    probe = vars(context.probe).values() if "probe" in edit.options.needs else ()
    domains = context.domains if "domains" in edit.options.needs else None
    decides = [edit.model_dump(), source, target.vectors, target.features, amount, *probe, domains]
    return replace(built, key=digest(*map(_plain, decides)))


def _plain(value: Any) -> Any:
    return value.detach().cpu().numpy().tobytes().hex() if isinstance(value, Tensor) else value


def _add(options: AddSpec, target: Target, amount: float, context: EditContext) -> Edit:
    gates = {"probe": context.probe, "feature": (context.sae, target.features), None: None}
    return add(
        target.vectors,
        amount,
        keep_norm=options.keep_norm,
        gate=gates[options.gate],  # type: ignore[arg-type]
        orthogonal_to=context.domains if options.orthogonal_to else None,
    )


BUILDERS: Mapping[str, Callable[[Any, Target, Any, EditContext], Edit]] = {
    "add": _add,
    "project_out": lambda _, target, __, ___: project_out(target.vectors),
    "ablate": lambda o, target, _, context: ablate(context.sae, target.features, o.error),
    "scale": lambda o, target, by, context: scale(context.sae, target.features, by, o.error),
    "set_to": lambda o, target, to, context: set_to(context.sae, target.features, to, o.error),
    "suppress_and_boost": lambda o, target, boost, context: suppress_and_boost(
        context.sae, target.features, boost, o.suppress, o.error
    ),
    "reconstruct": lambda o, _, __, context: reconstruct(context.sae, o.error),
    "custom": lambda o, target, amount, context: imported(o.function, "edit")(
        target, amount, context, **o.options
    ),
}
"""Name of an edit → the function (options, target, amount, context) that builds it."""
