"""Specs of the sweep."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from saelens_steer.config.base import Spec

AlphaUnit = Literal["raw", "unit", "max_act", "resid_norm", "kl"]


class GenerateSpec(Spec):
    """Which steered completions are written out, and how."""

    max_new_tokens: int = Field(default=64, gt=0)
    temperature: float = Field(default=0.0, ge=0)
    samples: int = Field(default=1, gt=0)
    top: int = Field(default=2, ge=0)
    """So many candidates of each side get completions."""
    n_controls: int = Field(default=2, ge=0)
    """So many control directions get completions."""
    files: bool = False
    """Also write one JSON for each feature and prompt, the original beside every strength."""

    @model_validator(mode="after")
    def _samples_need_temperature(self) -> GenerateSpec:
        if self.samples > 1 and self.temperature == 0:
            raise ValueError(
                "samples > 1 needs a temperature above 0: greedy samples are all equal"
            )
        return self


class SweepSpec(Spec):
    """Directions × strengths × prompts, against controls."""

    features: Literal["candidates"] | tuple[int, ...] = "candidates"
    edit: Literal["add"] = "add"
    alphas: tuple[float, ...] = (-4.0, -2.0, 0.0, 2.0, 4.0)
    alpha_unit: AlphaUnit = "raw"
    """raw: α·W_dec[f]. unit: α·W_dec[f]/‖W_dec[f]‖. max_act: α·A_max(f)·W_dec[f], A_max the
    largest activation in the cache. resid_norm: α · mean ‖x‖ · unit vector. kl: along ±W_dec[f],
    as far as the mean KL to the unsteered next-token distribution is |α| nats, controls too."""
    positions: Literal["all", "prompt", "last"] = "all"
    exclude_special_tokens: bool = False
    """Leave special tokens as they are."""
    max_norm: float | None = Field(default=None, gt=0)
    """Leave attention sinks alone: norm over so many times the median of their prompt."""
    n_controls: int = Field(default=512, ge=0)
    controls: Literal["covariance", "isotropic"] = "covariance"
    seed: int = 0
    executor: Literal["local"] = "local"
    batch_tokens: int | None = Field(default=None, gt=0)
    """Tokens in one batch of rows; null: 2,048 on a CPU, 16,384 on a GPU. Part of the packing
    plan: another value changes results in the last digits."""
    cache_logits: bool = False
    """Keep the last-token logits of every row, float32: new metrics then need no forward pass."""
    generate: GenerateSpec = GenerateSpec()

    @property
    def named(self) -> tuple[int, ...]:
        """The features that are named by index; none where the candidates are swept."""
        return () if isinstance(self.features, str) else self.features

    @field_validator("features", mode="wrap")
    @classmethod
    def _candidates_or_indices(cls, value: Any, check: Any) -> Any:
        try:
            features = check(value)
        except ValidationError:
            raise ValueError("should be 'candidates' or a list of feature indices") from None
        if len(set(features)) < len(features) and features != "candidates":
            raise ValueError("names a feature twice")
        return features

    @field_validator("alphas")
    @classmethod
    def _sorted_with_zero(cls, alphas: tuple[float, ...]) -> tuple[float, ...]:
        if not any(alphas):
            raise ValueError("needs at least one strength other than 0")
        return tuple(sorted({0.0, *alphas}))
