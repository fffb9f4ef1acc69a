"""Specs of what a run starts from: model, prompts, activations, metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from saelens_steer.config.base import Spec, tag

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
    """Drop attention sinks: vectors of a norm above this multiple of the median; null keeps all."""
    batch_size: int = Field(default=32, gt=0)


class TokenSetSpec(Spec):
    """A set of vocabulary entries: exactly one way of saying which."""

    name: str | None = None
    strings: tuple[str, ...] | None = None
    """Each with and without a leading space; each must be one token."""
    ids: tuple[int, ...] | None = None
    regex: str | None = None
    """Matches the whole decoded entry."""

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        if isinstance(value, Sequence) and not isinstance(value, str):
            return {"ids" if all(isinstance(v, int) for v in value) else "strings": value}
        return value

    @model_validator(mode="after")
    def _exactly_one(self) -> TokenSetSpec:
        given = [k for k in ("name", "strings", "ids", "regex") if getattr(self, k) is not None]
        if len(given) != 1 or not getattr(self, given[0]):
            raise ValueError("a token set is given by one of name, strings, ids or regex")
        return self


class MarginSpec(Spec):
    """max(logits[target]) − max(logits[other]) at the last prompt token."""

    name: str = "margin"
    target: TokenSetSpec
    other: TokenSetSpec | None = None
    """null: every other entry of the tokenizer but special tokens."""


class MarginMetric(Spec):
    """The `{margin: …}` form of a metric."""

    margin: MarginSpec


class MentionsSpec(Spec):
    """Whether a completion holds one of some words: whole words, upper or lower case."""

    name: str = "mentions"
    words: tuple[str, ...] = Field(min_length=1)

    @field_validator("words")
    @classmethod
    def _not_blank(cls, words: tuple[str, ...]) -> tuple[str, ...]:
        if not all(word.strip() for word in words):
            raise ValueError("a word is blank")
        return words


class MentionsMetric(Spec):
    """The `{mentions: …}` form of a metric."""

    mentions: MentionsSpec


def _metric_form(value: Any) -> str | None:
    if isinstance(value, str):
        return tag("name")
    if isinstance(value, MentionsMetric) or (isinstance(value, dict) and "mentions" in value):
        return tag("mentions")
    return tag("margin") if isinstance(value, dict | MarginMetric) else None


MetricSpec = Annotated[
    Annotated[str, Tag(tag("name"))]
    | Annotated[MarginMetric, Tag(tag("margin"))]
    | Annotated[MentionsMetric, Tag(tag("mentions"))],
    Discriminator(
        _metric_form,
        custom_error_type="metric",
        custom_error_message=(
            "a metric is a shipped name, {margin: …}, {mentions: …} or package.module:function"
        ),
    ),
]
"""A shipped name, a margin, words to be mentioned, or `package.module:function`."""

DEFAULT_METRICS: tuple[MetricSpec, ...] = (
    MarginMetric(
        margin=MarginSpec(name="math_margin", target=TokenSetSpec(name="latex_delimiters"))
    ),
    "kl",
    "code_validity",
    "latex_validity",
    "latex_first",
)
