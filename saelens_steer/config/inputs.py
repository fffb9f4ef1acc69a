"""Specs of a run's inputs: model, prompts, activations, metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from saelens_steer.config.base import Spec, tag

TINY = "tiny-qwen3"


class ModelSpec(Spec):
    """The model, its class, precision and device."""

    name: str = TINY
    """`tiny-qwen3`, a Hugging Face id, a local folder, or a GGUF file."""
    class_: Literal["HookedTransformer", "TransformerBridge"] = Field(
        default="HookedTransformer", alias="class"
    )
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    device: str = "auto"


class SampleSpec(Spec):
    """A random sample of a large source, stratified: equally many prompts from each stratum.

    Texts are stripped. Rows that are empty, too short, or duplicates after cutting are skipped; the
    rest are usable. If a stratum has too few rows, the others make up the difference.
    """

    n: int = Field(gt=0)
    """Number of prompts."""
    by: str | None = Field(default=None, min_length=1)
    """Column whose values are the strata, such as label; rows without a value are skipped.
    null: stratify by text length in characters."""
    strata: int = Field(default=5, gt=0)
    """Number of equally large strata of text length, if by is null."""
    seed: int = 0
    max_chars: int | None = Field(default=None, gt=0)
    """Cut texts to this many characters, at a word boundary, for the model to continue."""
    min_chars: int = Field(default=1, gt=0)
    """Skip rows with fewer characters. Many rows of wikitext are headings, such as
    "= = Reception = ="; 100 keeps only its paragraphs."""
    pool: int = Field(default=10_000, gt=0)
    """Draw from the first usable rows only, up to this many, so that a large dataset is not read in
    full. If all of them have the same value of by, as in a sorted dataset, that is an error."""

    @model_validator(mode="after")
    def _pool_is_large_enough(self) -> SampleSpec:
        if self.n > self.pool:
            raise ValueError(f"cannot draw n = {self.n} prompts from a pool of {self.pool} rows")
        return self


class TemplateSpec(Spec):
    """How prompts become the text that the model reads.

    Conversations go through the model's chat template. Plain text does so only if `chat` is true.
    """

    chat: bool | None = None
    """true: wrap plain text in the chat template, as a user message. false: leave it unchanged;
    conversations are then errors. null: leave it unchanged, and say so if there is a template."""
    system: str | None = None
    """A system message for the chat template."""
    add_generation_prompt: bool = True
    """End where the assistant's answer begins, or continue a last message by the assistant. false:
    the conversation as the template writes it."""
    chat_template_kwargs: Mapping[str, object] | None = None
    """Options of the chat template, such as {enable_thinking: true}, which is false by default."""

    @property
    def options(self) -> dict[str, Any]:
        """The four fields, as keywords."""
        return {name: getattr(self, name) for name in TemplateSpec.model_fields}

    @property
    def given(self) -> list[str]:
        """The options that only a chat template can follow."""
        found = {
            "system": self.system is not None,
            "add_generation_prompt": not self.add_generation_prompt,
            "chat_template_kwargs": bool(self.chat_template_kwargs),
        }
        return [name for name, is_given in found.items() if is_given]

    @model_validator(mode="after")
    def _raw_text_has_no_template(self) -> TemplateSpec:
        if self.chat is False and self.given:
            raise ValueError(
                f"{self.given[0]} needs the chat template, which chat: false leaves out: leave out "
                "one of the two"
            )
        return self


class PromptSpec(TemplateSpec):
    """The prompts to steer and measure."""

    source: str = "tiny-code-math-mixed"
    """A shipped set, a .jsonl or .txt path, or a Hugging Face dataset."""
    limit: int | None = Field(default=24, gt=0)
    """Use only the first prompts, up to this many; null for all."""
    sample: SampleSpec | None = None
    """Draw a stratified sample instead of using the first prompts; limit is then null."""

    @model_validator(mode="before")
    @classmethod
    def _a_sample_has_its_own_size(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("sample") is not None:
            return {"limit": None, **data}
        return data

    @model_validator(mode="after")
    def _limit_or_sample(self) -> PromptSpec:
        if self.sample is not None and self.limit is not None:
            raise ValueError(
                "give either limit or sample, not both: sample.n sets the number of prompts"
            )
        return self


class ActivationSpec(Spec):
    """Which activations to keep."""

    tokens: Literal["all", "last", "diagnostic", "answer"] = "all"
    """answer: only the tokens of answers, given or generated by the model."""
    max_norm: float | None = Field(default=10.0, gt=0)
    """Drop attention sinks: vectors with norm above this multiple of the median; null keeps all."""
    batch_size: int = Field(default=32, gt=0)


class TokenSetSpec(Spec):
    """A set of vocabulary entries, given by exactly one of these keys."""

    name: str | None = None
    strings: tuple[str, ...] | None = None
    """Each with and without a leading space; each must be one token."""
    ids: tuple[int, ...] | None = None
    regex: str | None = None
    """Must match the whole decoded entry."""

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        if isinstance(value, Sequence):
            return {"ids" if all(isinstance(v, int) for v in value) else "strings": value}
        return value

    @model_validator(mode="after")
    def _exactly_one(self) -> TokenSetSpec:
        given = [k for k in ("name", "strings", "ids", "regex") if getattr(self, k) is not None]
        if len(given) != 1 or not getattr(self, given[0]):
            raise ValueError("give a token set by exactly one of name, strings, ids or regex")
        return self


class MarginSpec(Spec):
    """max(logits[target]) − max(logits[other]) at the last prompt token."""

    name: str = "margin"
    target: TokenSetSpec
    other: TokenSetSpec | None = None
    """null: all other entries of the tokenizer except special tokens."""


class MarginMetric(Spec):
    """The `{margin: …}` form of a metric."""

    margin: MarginSpec


class MentionsSpec(Spec):
    """Whether a completion contains any of some words; whole words, case-insensitive."""

    name: str = "mentions"
    words: tuple[str, ...] = Field(min_length=1)

    @field_validator("words")
    @classmethod
    def _not_blank(cls, words: tuple[str, ...]) -> tuple[str, ...]:
        if not all(word.strip() for word in words):
            raise ValueError("words must not be blank")
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
"""A shipped name, a margin, words to mention, or `package.module:function`."""

DEFAULT_METRICS: tuple[MetricSpec, ...] = (
    MarginMetric(
        margin=MarginSpec(name="math_margin", target=TokenSetSpec(name="latex_delimiters"))
    ),
    "kl",
    "code_validity",
    "latex_validity",
    "latex_first",
)
