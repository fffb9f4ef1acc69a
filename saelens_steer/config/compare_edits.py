"""Specs of comparing edits side by side."""

from __future__ import annotations

from math import isfinite
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, WrapValidator, model_validator

from saelens_steer.config.base import Spec
from saelens_steer.config.edits import EditSpec


def _positive_or_auto(value: Any, check: Any) -> Any:
    wanted = ValueError("should be a positive number, null or auto")
    try:
        max_norm = check(value)
    except ValidationError:
        raise wanted from None
    if isinstance(max_norm, float) and not max_norm > 0:
        raise wanted
    return max_norm


MaxNorm = Annotated[float | Literal["auto"] | None, WrapValidator(_positive_or_auto)]
"""A positive multiple of the median norm, null or auto."""


class CompareEditsSettings(Spec):
    """Where compared edits act, and how much text is generated."""

    positions: Literal["all", "prompt", "generated", "last"] = "all"
    exclude_special_tokens: bool = False
    max_norm: MaxNorm = "auto"
    """Leave attention sinks unedited: positions whose norm exceeds this multiple of their prompt's
    median. auto: 10 if an SAE is spliced in, otherwise no limit."""
    max_new_tokens: int = Field(default=64, gt=0)
    batch_size: int = Field(default=16, gt=0)


class GenerateSettings(CompareEditsSettings):
    """Strengths, sampling and controls of texts side by side."""

    alphas: tuple[float, ...] = Field(default=(1.0,), min_length=1)
    """Multiples of each vector, in `alpha_unit`; edits have their own strength."""
    alpha_unit: Literal["raw", "unit", "resid_norm"] = "raw"
    """raw: α · v. unit: α · v/‖v‖. resid_norm: α · mean ‖x‖ · v/‖v‖."""
    temperature: float = Field(default=0.0, ge=0)
    """0: greedy."""
    samples: int = Field(default=1, gt=0)
    """Texts per prompt and variant; more than one need a temperature."""
    controls: int = Field(default=1, ge=0)
    """Random directions per treatment and strength."""
    seed: int = 0

    @model_validator(mode="after")
    def _each_is_another(self) -> GenerateSettings:
        if self.samples > 1 and self.temperature == 0:
            raise ValueError("samples > 1 at temperature 0 are all the same: set a temperature")
        if not all(alpha and isfinite(alpha) for alpha in self.alphas):
            raise ValueError("alphas should be finite and not 0: the unsteered text comes anyway")
        return self


class CompareEditsSpec(CompareEditsSettings):
    """What the unedited and the edited model generate for the steered prompts, side by side."""

    variants: dict[str, tuple[EditSpec, ...]] = Field(min_length=1)
    """Name → edits, applied in order."""
    limit: int | None = Field(default=None, gt=0)
    """Use only the first `limit` prompts."""

    @property
    def named(self) -> tuple[int, ...]:
        """Features that edits name by index."""
        named = [edit.options.features for edit in self.edits]
        return tuple(f for features in named if not isinstance(features, str) for f in features)

    @property
    def needs_a_max(self) -> bool:
        return any(edit.options.strength_unit == "max_act" for edit in self.edits)

    @property
    def edits(self) -> list[EditSpec]:
        return [edit for edits in self.variants.values() for edit in edits]

    @model_validator(mode="after")
    def _names_and_edits(self) -> CompareEditsSpec:
        for name, edits in self.variants.items():
            if name == "original":
                raise ValueError(
                    "a variant cannot be called 'original', the name of the unedited model"
                )
            if not edits:
                raise ValueError(f"variant {name!r} has no edit")
            for edit in edits:
                if missing := edit.options.missing:
                    raise ValueError(f"variant {name!r}: {edit.kind} needs {missing}")
            named = [place for edit in edits for place in edit.latents]
            if twice := [place for place in named if named.count(place) > 1]:
                raise ValueError(
                    f"variant {name!r} edits feature {twice[0][1]} twice at one hook: keep one"
                )
        return self
