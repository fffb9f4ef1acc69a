"""Specs of metrics and of the token sets that a margin is between."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from saelens_steer.config.base import Spec
from saelens_steer.config.complaints import tag


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
