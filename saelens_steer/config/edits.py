"""Specs of edits, one class per edit."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, get_args

from pydantic import Field, ValidationError, field_validator, model_serializer, model_validator

from saelens_steer.config.base import Anything, HookName, Spec
from saelens_steer.config.sizes import Count
from saelens_steer.errors import or_known

ErrorTerm = Literal["keep", "drop"]
Strength = Literal["push", "factor", "value"]
"""How an edit uses a sweep's α: the strength of a push, a factor of 1 + α, or a value of z."""


class EditOptions(Spec):
    """The features that an edit acts along, and its options."""

    STRENGTH: ClassVar[Strength | None] = None
    """How the edit uses a sweep's α; None if it has no strength."""
    GIVEN_AS: ClassVar[str | None] = None
    """The option that sets the strength outside a sweep."""
    ENCODES: ClassVar[bool] = False
    """Whether the edit changes z, which needs features and an encoder."""

    features: str | tuple[int, ...] = ()
    """Feature indices, or a domain of select for its best candidates."""
    top: Count = 1
    """Number of candidates of that domain."""
    hook_name: HookName | None = None
    """null: the run's hook."""

    @field_validator("features", mode="wrap")
    @classmethod
    def _domain_or_indices(cls, value: Any, check: Any) -> Any:
        try:
            features = check(value)
        except ValidationError:
            raise ValueError("should be a domain or a list of feature indices") from None
        if value is not None and not features:
            raise ValueError("should not be empty")
        if not isinstance(features, str) and len(set(features)) < len(features):
            raise ValueError("lists a feature twice")
        return features

    @property
    def strength(self) -> Strength | None:
        return self.STRENGTH

    @property
    def strength_unit(self) -> str:
        """The unit of the strength outside a sweep."""
        return getattr(self, "alpha_unit", getattr(self, "unit", "raw"))

    @property
    def needs(self) -> frozenset[str]:
        """Inputs besides the direction: feature, encoder, probe, domains."""
        return frozenset({"feature", "encoder"} if self.ENCODES else ())

    @property
    def missing(self) -> str | None:
        """The required option that is not set, outside a sweep."""
        if not self.features:
            return "features"
        return self.GIVEN_AS if self.GIVEN_AS and getattr(self, self.GIVEN_AS) is None else None


class AddSpec(EditOptions):
    """x ← x + α · W_dec[f]."""

    STRENGTH, GIVEN_AS = "push", "alpha"

    alpha: float = 1.0
    alpha_unit: Literal["raw", "unit", "max_act", "resid_norm"] = "raw"
    keep_norm: bool = False
    """Rescale x′ to ‖x‖, so that only its angle changes."""
    gate: Literal["feature", "probe"] | None = None
    """feature: push only where the feature is active. probe: push only where a linear probe
    classifies the activation as coming from the steered prompts; the probe is fitted to their last
    tokens against those of the selection prompts."""
    orthogonal_to: Literal["domains"] | None = None
    """Push along the part of the direction that is orthogonal to the means of the other selection
    domains (each minus the mean of the two sides), rescaled to the direction's norm."""

    @property
    def needs(self) -> frozenset[str]:
        gated = {"feature": {"feature", "encoder"}, "probe": {"probe"}, None: set[str]()}
        return frozenset(gated[self.gate] | ({"domains"} if self.orthogonal_to else set()))


class ProjectOutSpec(EditOptions):
    """Remove the components of x along W_dec[f]."""


class AblateSpec(EditOptions):
    """z_f ← 0."""

    ENCODES = True

    error: ErrorTerm = "keep"


class ScaleSpec(EditOptions):
    """z_f ← factor · z_f. In a sweep the factor is 1 + α."""

    STRENGTH, GIVEN_AS, ENCODES = "factor", "factor", True

    factor: float | None = None
    error: ErrorTerm = "keep"


class SetToSpec(EditOptions):
    """z_f ← value."""

    STRENGTH, GIVEN_AS, ENCODES = "value", "value", True

    value: float | None = None
    unit: Literal["raw", "max_act"] = "raw"
    """max_act: multiples of A_max(f)."""
    error: ErrorTerm = "keep"


class SuppressAndBoostSpec(EditOptions):
    """z ← suppress · z for every feature, then z_f ← z_f + boost."""

    STRENGTH, GIVEN_AS, ENCODES = "value", "boost", True

    boost: float | None = None
    suppress: float = 0.5
    unit: Literal["raw", "max_act"] = "raw"
    """The unit of boost. max_act: multiples of A_max(f)."""
    error: ErrorTerm = "keep"


class ReconstructSpec(EditOptions):
    """x ← decode(encode(x)): the SAE spliced in."""

    ENCODES = True

    error: ErrorTerm = "drop"

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"encoder"})

    @property
    def missing(self) -> None:
        return None

    @model_validator(mode="after")
    def _of_no_feature(self) -> ReconstructSpec:
        if self.features:
            raise ValueError("reconstruct changes no feature: leave features out")
        return self


class CustomSpec(EditOptions):
    """A custom edit, built by a function `package.module:function`."""

    GIVEN_AS = "alpha"

    function: str = Field(pattern=r"^[\w.]+:[\w.]+$")
    """function(target, amount, context, **options) → Edit."""
    options: dict[str, Anything] = Field(default_factory=dict)
    means: Strength | None = "push"
    """How the edit uses a sweep's α: push, factor, or value (of z); null: it has no strength."""
    alpha: float = 1.0
    alpha_unit: Literal["raw", "unit", "max_act", "resid_norm"] = "raw"

    @property
    def strength(self) -> Strength | None:
        return self.means


class EditSpec(Spec):
    """One edit: its name, such as `ablate`, or its name and options: `add: {keep_norm: true}`."""

    add: AddSpec | None = None
    project_out: ProjectOutSpec | None = None
    ablate: AblateSpec | None = None
    scale: ScaleSpec | None = None
    set_to: SetToSpec | None = None
    suppress_and_boost: SuppressAndBoostSpec | None = None
    reconstruct: ReconstructSpec | None = None
    custom: CustomSpec | None = None

    @property
    def kind(self) -> str:
        return next(name for name in EDITS if getattr(self, name) is not None)

    @property
    def options(self) -> Any:
        return getattr(self, self.kind)

    @property
    def label(self) -> str:
        """The edit with its options, such as add(keep_norm) or scale(error=drop)."""
        given = self.options.model_dump(exclude_defaults=True, exclude=OF_A_SWEEP)
        if self.custom:
            more = [f"{key}={value}" for key, value in given.get("options", {}).items()]
            return self.custom.function + (f"({', '.join(more)})" if more else "")
        shown = [key if value is True else f"{key}={value}" for key, value in given.items()]
        return self.kind + (f"({', '.join(shown)})" if shown else "")

    @property
    def is_push(self) -> bool:
        """Whether the edit adds the same vector to every activation."""
        return self.add is not None and not (self.add.keep_norm or self.add.gate)

    @property
    def splices(self) -> bool:
        """Whether the edit replaces activations by the SAE's reconstruction."""
        return getattr(self.options, "error", "keep") == "drop"

    @property
    def latents(self) -> list[tuple[str | None, str | int]]:
        """(hook, feature) of every z_f that the edit changes; a domain's candidates by rank."""
        options = self.options
        if not (options.ENCODES and options.features):
            return []
        if isinstance(options.features, str):
            ranked = [f"{options.features} {i + 1}" for i in range(options.top)]
            return [(options.hook_name, name) for name in ranked]
        return [(options.hook_name, feature) for feature in options.features]

    @property
    def needs_encoder(self) -> bool:
        """Whether applying the edit, choosing its features or its unit needs the SAE's encoder."""
        by_domain = isinstance(self.options.features, str)
        max_act = self.options.strength_unit == "max_act"
        return "encoder" in self.options.needs or by_domain or max_act

    @model_validator(mode="before")
    @classmethod
    def _bare_names(cls, value: Any) -> Any:
        """Read `reconstruct` as `reconstruct: {}`, and name the edit nearest to an unknown one."""
        if isinstance(value, str):
            value = {value: {}}
        if not isinstance(value, dict):
            return value
        for name in value:
            if name not in cls.model_fields:
                raise ValueError(f"there is no edit {name!r}; {or_known(str(name), EDITS)}")
        return {name: {} if options is None else options for name, options in value.items()}

    @model_validator(mode="after")
    def _exactly_one(self) -> EditSpec:
        if sum(getattr(self, name) is not None for name in EDITS) != 1:
            raise ValueError(f"an edit should be one of {', '.join(EDITS)}")
        return self

    @model_serializer
    def _as_written(self) -> str | dict[str, Any]:
        given = self.options.model_dump(exclude_defaults=True)
        return {self.kind: given} if given else self.kind


EDITS: dict[str, type[EditOptions]] = {
    name: get_args(field.annotation)[0] for name, field in EditSpec.model_fields.items()
}
"""Name → the spec of an edit; `steering.BUILDERS` has the function that builds it."""
OF_A_SWEEP = frozenset(
    {"features", "top", "hook_name", "alpha", "alpha_unit", "factor", "value", "boost", "unit"}
)
"""Options set by the sweep and the trade-offs: what is edited, where, and how strongly."""


def check_sweepable(edit: EditSpec, section: str) -> None:
    """Raise ValueError if an edit sets an option in OF_A_SWEEP."""
    given = edit.options.model_dump(exclude_defaults=True)
    if stated := sorted(OF_A_SWEEP & set(given)):
        raise ValueError(
            f"edit {edit.kind}: {section} sets {stated[0]} for each direction and strength: leave "
            "it out"
        )


def check_gate(edit: EditSpec, positions: str) -> None:
    """Raise ValueError if a probe gate would see tokens that it is not fitted to."""
    if "probe" in edit.options.needs and positions != "last":
        raise ValueError(
            "the probe of gate: probe is fitted to the last prompt token, so set positions: last"
        )
