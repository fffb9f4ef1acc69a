"""Specs of the model, the prompts and the activations."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from saelens_steer.config.base import Spec

TINY = "tiny-qwen3"


class ModelSpec(Spec):
    """Which model, as what class, in what precision, where."""

    name: str = TINY
    """`tiny-qwen3`, a Hugging Face id, or a local folder."""
    class_: Literal["HookedTransformer", "TransformerBridge"] = Field(
        default="HookedTransformer", alias="class"
    )
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    device: str = "auto"


class SampleSpec(Spec):
    """A stratified sample of a large source: as many prompts from each stratum, by a seed.

    Texts are stripped. Rows that are empty, too short, or alike in what is kept of them are passed
    over; the rest are usable. A stratum with too few gives its share to the others.
    """

    n: int = Field(gt=0)
    """How many prompts."""
    by: str | None = Field(default=None, min_length=1)
    """The column whose values are the strata, such as label; rows without a value are passed over.
    null: by the length of the whole text in characters."""
    strata: int = Field(default=5, gt=0)
    """Without by: so many strata, each of as many rows, from the shortest texts to the longest."""
    seed: int = 0
    max_chars: int | None = Field(default=None, gt=0)
    """Cut a text at a word boundary to so many characters, as a beginning to be continued."""
    min_chars: int = Field(default=1, gt=0)
    """Pass over rows with fewer characters in all. Many of wikitext's rows are headings such as
    "= = Reception = =": 100 leaves its paragraphs."""
    pool: int = Field(default=10_000, gt=0)
    """Look at the first so many usable rows only, so that a large dataset is not read whole. Where
    a dataset is sorted by the column of by, they may hold one value alone, which is refused."""

    @model_validator(mode="after")
    def _pool_is_large_enough(self) -> SampleSpec:
        if self.n > self.pool:
            raise ValueError(f"n = {self.n} prompts cannot come from a pool of {self.pool} rows")
        return self


class PromptSpec(Spec):
    """The prompts that are steered and measured."""

    source: str = "tiny-code-math-mixed"
    """A shipped name, a .jsonl or .txt path, or a Hugging Face dataset."""
    limit: int | None = Field(default=24, gt=0)
    """Use the first so many; null for all."""
    sample: SampleSpec | None = None
    """Draw a stratified sample instead of taking the first; limit is then null."""
    system: str | None = None
    """A system message for the chat template."""
    chat: bool = True
    """Wrap each text in the model's chat template; false: the text as it stands."""

    @model_validator(mode="before")
    @classmethod
    def _a_sample_has_its_own_size(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("sample") is not None:
            return {"limit": None, **data}
        return data

    @model_validator(mode="after")
    def _limit_or_sample(self) -> PromptSpec:
        if self.sample is not None and self.limit is not None:
            raise ValueError("give either limit or sample, not both: sample.n says how many")
        return self


class ActivationSpec(Spec):
    """Which tokens' activations are kept."""

    tokens: Literal["all", "last", "diagnostic", "answer"] = "all"
    """answer: of prompts with an answer, given or written by the model, the answer's alone."""
    max_norm: float | None = Field(default=10.0, gt=0)
    """Drop attention sinks: vectors whose norm exceeds so many times the median; null keeps all."""
    batch_size: int = Field(default=32, gt=0)
