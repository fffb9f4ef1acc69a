"""Specs of patching: named variants of the model, lists of edits whose outputs are compared."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_serializer, model_validator

from saelens_steer.config.base import Spec

ErrorTerm = Literal["keep", "drop"]


class _OnFeatures(Spec):
    """What edits of features have in common."""

    features: str | tuple[int, ...]
    """Indices, or a domain of select: its best candidates."""
    top: int = Field(default=1, gt=0)
    """With a domain: so many of its candidates."""
    hook_name: str | None = None
    """null: the run's own."""

    @field_validator("features", mode="wrap")
    @classmethod
    def _domain_or_indices(cls, value: Any, check: Any) -> Any:
        try:
            features = check(value)
        except ValidationError:
            raise ValueError("should be a domain or a list of feature indices") from None
        if not features:
            raise ValueError("should not be empty")
        if not isinstance(features, str) and len(set(features)) < len(features):
            raise ValueError("names a feature twice")
        return features


class AddSpec(_OnFeatures):
    """x ← x + α · W_dec[f]."""

    alpha: float = 1.0
    alpha_unit: Literal["raw", "unit", "max_act", "resid_norm"] = "raw"


class ProjectOutSpec(_OnFeatures):
    """Take the components along W_dec[f] out of x."""


class AblateSpec(_OnFeatures):
    """z_f ← 0."""

    error: ErrorTerm = "keep"


class ScaleSpec(_OnFeatures):
    """z_f ← factor · z_f."""

    factor: float
    error: ErrorTerm = "keep"


class SetSpec(_OnFeatures):
    """z_f ← value."""

    value: float
    unit: Literal["raw", "max_act"] = "raw"
    """max_act: in multiples of A_max(f)."""
    error: ErrorTerm = "keep"


class SuppressAndBoostSpec(_OnFeatures):
    """z ← suppress · z for all features, then z_f ← z_f + boost."""

    boost: float
    suppress: float = 0.5
    unit: Literal["raw", "max_act"] = "raw"
    """Of boost. max_act: in multiples of A_max(f)."""
    error: ErrorTerm = "keep"


class ReconstructSpec(Spec):
    """x ← decode(encode(x)): the SAE spliced in."""

    error: ErrorTerm = "drop"
    hook_name: str | None = None


class EditSpec(Spec):
    """One edit: exactly one key, such as `ablate: {features: [3]}`."""

    add: AddSpec | None = None
    project_out: ProjectOutSpec | None = None
    ablate: AblateSpec | None = None
    scale: ScaleSpec | None = None
    set: SetSpec | None = None
    suppress_and_boost: SuppressAndBoostSpec | None = None
    reconstruct: ReconstructSpec | None = None

    @property
    def kind(self) -> str:
        """The key that is given."""
        return next(iter(self.model_fields_set))

    @property
    def inner(self) -> Any:
        """The spec under that key."""
        return getattr(self, self.kind)

    @property
    def latents(self) -> list[tuple[str | None, str | int]]:
        """(hook, feature) of what is changed by way of the encoder; of a domain, its best."""
        if self.kind in ("add", "project_out", "reconstruct"):
            return []
        given, hook_name = self.inner.features, self.inner.hook_name
        if isinstance(given, str):
            return [(hook_name, f"{given} {i + 1}") for i in range(self.inner.top)]
        return [(hook_name, feature) for feature in given]

    @property
    def encodes(self) -> bool:
        """Whether it goes through the SAE's encoder."""
        return self.kind not in ("add", "project_out")

    @property
    def unit(self) -> str:
        """The unit of its strength."""
        return getattr(self.inner, "alpha_unit", getattr(self.inner, "unit", "raw"))

    @property
    def needs_encoder(self) -> bool:
        """Whether it takes the encoder to make: to apply it, to choose its features, for A_max."""
        by_domain = isinstance(getattr(self.inner, "features", ()), str)
        return self.encodes or by_domain or self.unit == "max_act"

    @model_validator(mode="before")
    @classmethod
    def _bare_names(cls, value: Any) -> Any:
        """`reconstruct` alone stands for `reconstruct: {}`."""
        if isinstance(value, str):
            return {value: {}}
        if isinstance(value, dict):
            return {key: {} if inner is None else inner for key, inner in value.items()}
        return value

    @model_validator(mode="after")
    def _exactly_one(self) -> EditSpec:
        if len(self.model_fields_set) != 1:
            raise ValueError(f"an edit is one of {', '.join(type(self).model_fields)}")
        return self

    @model_serializer(mode="wrap")
    def _only_what_is_given(self, handler: Any) -> dict[str, Any]:
        return {key: value for key, value in handler(self).items() if value is not None}


class CompareEditsSettings(Spec):
    """Where the edits of patching act, and how much is written."""

    positions: Literal["all", "prompt", "generated", "last"] = "all"
    exclude_special_tokens: bool = False
    max_norm: float | Literal["auto"] | None = "auto"
    """Leave attention sinks alone: norm above this multiple of the prompt's median. auto: 10 where
    an SAE is spliced in, else no limit."""
    max_new_tokens: int = Field(default=64, gt=0)
    batch_size: int = Field(default=16, gt=0)

    @field_validator("max_norm", mode="wrap")
    @classmethod
    def _positive_or_auto(cls, value: Any, check: Any) -> Any:
        wanted = ValueError("should be a positive number, null or auto")
        try:
            max_norm = check(value)
        except ValidationError:
            raise wanted from None
        if isinstance(max_norm, float) and not max_norm > 0:
            raise wanted
        return max_norm


class CompareEditsSpec(CompareEditsSettings):
    """Original and patched outputs side by side, for the prompts that are steered."""

    variants: dict[str, tuple[EditSpec, ...]] = Field(min_length=1)
    """Name → edits, which act in the order given."""
    limit: int | None = Field(default=None, gt=0)
    """Only the first so many prompts."""

    @property
    def named(self) -> tuple[int, ...]:
        """The features that edits name by index."""
        given = [getattr(edit.inner, "features", ()) for edit in self.edits]
        return tuple(f for features in given if not isinstance(features, str) for f in features)

    @property
    def needs_a_max(self) -> bool:
        """Whether a strength is in multiples of A_max."""
        return any(edit.unit == "max_act" for edit in self.edits)

    @property
    def edits(self) -> list[EditSpec]:
        """The edits of all variants."""
        return [edit for edits in self.variants.values() for edit in edits]

    @model_validator(mode="after")
    def _names_and_edits(self) -> CompareEditsSpec:
        for name, edits in self.variants.items():
            if name == "original":
                raise ValueError("a variant cannot be called 'original', the unpatched model")
            if not edits:
                raise ValueError(f"variant {name!r} has no edit")
            named = [place for edit in edits for place in edit.latents]
            if twice := [place for place in named if named.count(place) > 1]:
                raise ValueError(
                    f"variant {name!r} edits feature {twice[0][1]} twice at one hook: keep one"
                )
        return self
