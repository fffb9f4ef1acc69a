"""Specs of metrics, and what their names and columns may be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)

from saelens_steer.config.base import Spec, tag
from saelens_steer.errors import InputError, or_known


class MetricFacts(NamedTuple):
    """What a shipped metric is computed from, and the columns that it writes."""

    of: Literal["logits", "text"]
    columns: tuple[str, ...]


METRICS = {
    "kl": MetricFacts("logits", ("kl",)),
    "code_validity": MetricFacts("text", ("code_valid", "code_valid_present")),
    "latex_validity": MetricFacts("text", ("latex_valid", "latex_valid_present")),
    "latex_first": MetricFacts("text", ("latex_first",)),
    "distinct_words": MetricFacts("text", ("distinct_words",)),
}
"""Name → facts of a shipped metric; `metrics.registry.SHIPPED` has its function."""
TOKEN_SETS = {
    "latex_delimiters": r"\s*(\$\$?|\\\(|\\\[)\s*",
    "code_fences": r"\s*`{3,}\s*",
}
"""Shipped sets, as regular expressions that match the whole decoded entry."""
TABLE_COLUMNS = frozenset({
    "direction", "family", "feature", "edit", "hook_name", "positions", "alpha", "alpha_unit",
    "prompt_id", "domain", "matched_norm", "matched_to", "n", "cell", "sample", "prompt",
    "completion", "truncated", "n_tokens", "code", "latex", "receipt_positions", "receipt_push",
    "receipt_rel_norm", "receipt_feature_act", "variant", "edits", "receipt_changed",
    "receipt_act_before", "receipt_act", "kind", "found_by", "text_loss", "rank", "method", "side",
    "equal", "effect", "metric",
})  # fmt: skip
"""Column names of the result tables, which no metric may have."""
SUFFIXES = ("_delta", "_ci_low", "_ci_high")
"""The suffixes that the summary table appends to a metric's name."""
NO_LOGIT_METRIC = "metrics should include a logit metric, such as kl or a margin"


def check_metric(name: str) -> str:
    """Return the name of a metric. Raises InputError unless it is shipped or names a function."""
    if name in FORMS:
        raise InputError(f"the metric {name!r} needs its settings: write {{{name}: {{…}}}}")
    if ":" not in name and name not in METRICS:
        module, _, function = name.rpartition(".")
        named = f"{module}:{function}" if module and function else "package.module:function"
        raise InputError(
            f"unknown metric {name!r}; {or_known(name, METRICS)} (if it is a function, write "
            f"{named})"
        )
    return name


def check_margin(name: str, is_margin: bool) -> None:
    """Raise InputError unless the outcome is a margin, whose tokens direct_logit reads."""
    if not is_margin:
        raise InputError(
            f"direct_logit needs the tokens of a margin, and {name} is not a margin: "
            "make a margin the first logit metric"
        )


def check_columns(names: Sequence[str], own: Sequence[str] = ()) -> None:
    """Raise InputError unless metrics with these columns can be in one table.

    `own`: columns of your own metrics, which must not take the name of a shipped one.
    """
    shipped = {*METRICS, *(column for facts in METRICS.values() for column in facts.columns)}
    for name in own:
        if name in shipped:
            raise InputError(f"metric {name!r} has the name of a built-in one: give another name")
    for i, name in enumerate(names):
        if name in names[:i]:
            raise InputError(f"two metrics write the column {name!r}: rename one, or leave one out")
        if not name.strip():
            raise InputError("a metric's name must not be empty")
        if name in TABLE_COLUMNS or any(name == f"{n}{s}" for n in names for s in SUFFIXES):
            raise InputError(
                f"a metric cannot be called {name!r}: the result tables have that column; rename it"
            )


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
        if self.name and self.name not in TOKEN_SETS:
            known = or_known(self.name, TOKEN_SETS)
            raise ValueError(
                f"unknown token set {self.name!r}; {known} (for a word, write [{self.name!r}])"
            )
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


class LogProbSpec(Spec):
    """log p(next token in target | not in excluding) at the last prompt token, in nats.

    logsumexp(logits[target]) − logsumexp(all logits but those of excluding). A margin or a plain
    log-probability falls whenever another token becomes likelier; this one does not move if the
    tokens that gain are in excluding.
    """

    name: str = "log_prob"
    target: TokenSetSpec
    excluding: TokenSetSpec | None = None
    """null: no token is left out."""


class LogProbMetric(Spec):
    """The `{log_prob: …}` form of a metric."""

    log_prob: LogProbSpec


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


FORMS = {"margin": MarginMetric, "log_prob": LogProbMetric, "mentions": MentionsMetric}
"""Key → the metric that is written as {key: …}."""


def _metric_form(value: Any) -> str | None:
    if isinstance(value, str):
        return tag("name")
    for key, form in FORMS.items():
        if isinstance(value, form) or (isinstance(value, dict) and key in value):
            return tag(key)
    return tag("margin") if isinstance(value, dict) else None


MetricSpec = Annotated[
    Annotated[str, AfterValidator(check_metric), Tag(tag("name"))]
    | Annotated[MarginMetric, Tag(tag("margin"))]
    | Annotated[LogProbMetric, Tag(tag("log_prob"))]
    | Annotated[MentionsMetric, Tag(tag("mentions"))],
    Discriminator(
        _metric_form,
        custom_error_type="metric",
        custom_error_message=(
            "a metric is the name of a built-in one, {margin: …}, {log_prob: …}, {mentions: …} or "
            "package.module:function"
        ),
    ),
]
"""The name of a built-in metric, a margin, a log-probability, words to mention, or
`package.module:function`."""

DEFAULT_METRICS: tuple[MetricSpec, ...] = (
    MarginMetric(
        margin=MarginSpec(name="math_margin", target=TokenSetSpec(name="latex_delimiters"))
    ),
    "kl",
    "latex_first",
)
"""For the tiny model, whose code and LaTeX are always valid until something pushes it."""
