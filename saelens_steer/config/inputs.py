"""Specs of a run's inputs: model, prompts, activations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from saelens_steer.config.base import Seed, Spec, finite
from saelens_steer.config.sizes import Count

TINY = "tiny-qwen3"
TINY_CORPUS = "tiny"


def left_to_defaults(model: str, who: str, missing: Sequence[str]) -> str:
    """The error text for a config or call that leaves these to the tiny model's defaults."""
    return f"for model {model!r} {who} must state {', '.join(missing)}: the defaults are for {TINY}"


class ModelSpec(Spec):
    """The model, its class, precision and device."""

    name: str = TINY
    """`tiny-qwen3`, a Hugging Face id, a local folder, or a GGUF file."""
    fetch_with: str | None = None
    """The command that fetches a local folder or file. It is never run; the error names it if that
    folder or file is missing."""
    class_: Literal["HookedTransformer", "TransformerBridge"] = Field(
        default="HookedTransformer", alias="class"
    )
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    device: str = "auto"


class SampleSpec(Spec):
    """A random sample of a large source, stratified: the same number of prompts from each stratum.

    Texts are stripped. Rows that are empty, too short, or duplicates after cutting are skipped; the
    rest are usable. If a stratum has too few rows, the others make up the difference.
    """

    n: Count
    """Number of prompts."""
    by: str | None = Field(default=None, min_length=1)
    """Column whose values are the strata, such as label; rows without a value are skipped.
    null: stratify by text length in characters."""
    strata: Count = 5
    """Number of equally large strata of text length, if by is null."""
    seed: Seed = 0
    max_chars: Count | None = None
    """Cut texts to this many characters, at a word boundary, for the model to continue."""
    min_chars: Count = 1
    """Skip rows with fewer characters. Many rows of wikitext are headings, such as
    "= = Reception = ="; 100 keeps only its paragraphs."""
    pool: Count = 10_000
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
    conversations are then errors. null: leave it unchanged, with a note if there is a template."""
    system: str | None = None
    """A system message for the chat template."""
    add_generation_prompt: bool = True
    """End where the assistant's answer begins, or continue a final assistant message. false:
    the conversation as the template writes it."""
    chat_template_kwargs: Mapping[str, Annotated[object, AfterValidator(finite)]] | None = None
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
                f"{self.given[0]} needs the chat template, which chat: false turns off: remove one "
                "of the two"
            )
        return self


class PromptSpec(TemplateSpec):
    """The prompts to steer and measure."""

    source: str = "tiny-code-math-mixed"
    """A shipped set, a .jsonl or .txt path, or a Hugging Face dataset."""
    limit: Count | None = 24
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
    batch_size: Count = 32
