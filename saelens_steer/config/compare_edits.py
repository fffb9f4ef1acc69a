"""Specs of comparing edits side by side."""

from __future__ import annotations

from math import isfinite
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, WrapValidator, model_validator

from saelens_steer.config.base import Seed, Spec
from saelens_steer.config.edits import EditSpec
from saelens_steer.config.sizes import Count, CountOrZero, check_texts


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
    max_new_tokens: Count = 64
    batch_size: Count = 16
    """Rows at once: prompts × variants, if several variants fit."""

    @property
    def where(self) -> dict[str, Any]:
        """Keywords of `steered`."""
        keys = ("positions", "exclude_special_tokens", "max_norm")
        return {key: getattr(self, key) for key in keys}

    def check_size(self, n_prompts: int, n_variants: int) -> None:
        """Raise InputError if the texts of this many variants, and of none, exceed the memory."""
        check_texts(
            n_prompts * (1 + n_variants),
            self.max_new_tokens,
            "prompts × variants",
            "lower max_new_tokens, or give fewer prompts or variants",
        )

    @model_validator(mode="after")
    def _generated_tokens_are_read(self) -> CompareEditsSettings:
        if self.positions == "generated" and self.max_new_tokens == 1:
            raise ValueError(
                "with positions generated, max_new_tokens should be at least 2, because the model "
                "never reads the last token that it writes"
            )
        return self


class GenerateSettings(CompareEditsSettings):
    """Settings of `generate`: strengths, sampling and controls."""

    alphas: tuple[float, ...] = Field(default=(1.0,), min_length=1)
    """Multiples of each vector, in `alpha_unit`; edits have their own strength."""
    alpha_unit: Literal["raw", "unit", "resid_norm"] = "raw"
    """raw: α · v. unit: α · v/‖v‖. resid_norm: α · mean ‖x‖ · v/‖v‖."""
    temperature: float = Field(default=0.0, ge=0)
    """0: greedy."""
    samples: Count = 1
    """Texts per prompt and variant; more than one needs a temperature."""
    controls: CountOrZero = 1
    """Random directions per treatment and strength."""
    seed: Seed = 0

    def check_size(self, n_prompts: int, n_variants: int) -> None:
        """Raise InputError if the texts of this many treatments and strengths exceed the memory."""
        check_texts(
            n_prompts * self.samples * (1 + n_variants * (1 + self.controls)),
            self.max_new_tokens,
            "prompts × samples × treatments × alphas × controls",
            "lower controls, samples or max_new_tokens, or give fewer prompts or alphas",
        )

    @model_validator(mode="after")
    def _each_is_another(self) -> GenerateSettings:
        if self.samples > 1 and self.temperature == 0:
            raise ValueError(
                "samples > 1 needs a temperature above 0: greedy samples are identical"
            )
        if not all(alpha and isfinite(alpha) for alpha in self.alphas):
            raise ValueError("alphas should be finite and not 0: unsteered text is always included")
        return self


class CompareEditsSpec(CompareEditsSettings):
    """What the unedited and the edited model generate for the steered prompts, side by side."""

    variants: dict[str, tuple[EditSpec, ...]] = Field(min_length=1)
    """Name → edits, applied in order."""
    limit: Count | None = None
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
                    raise ValueError(f"variant {name!r}: {edit.kind} needs {missing}: …")
            named = [place for edit in edits for place in edit.latents]
            if twice := [place for place in named if named.count(place) > 1]:
                raise ValueError(
                    f"variant {name!r} edits feature {twice[0][1]} twice at one hook: keep one"
                )
        return self
