"""From the metrics that a config or a call names to the functions that compute them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from saelens_steer.config import (
    MarginMetric,
    MarginSpec,
    MentionsMetric,
    MetricSpec,
    TokenSetSpec,
    checked,
)
from saelens_steer.data import Encoded, complement, describe, token_set
from saelens_steer.errors import InputError, or_known
from saelens_steer.metrics.code import Validity, code_validity
from saelens_steer.metrics.custom import custom_metric
from saelens_steer.metrics.latex import latex_first, latex_validity
from saelens_steer.metrics.metric import KL, LogitMetric, Metric, TextMetric, logit_margin
from saelens_steer.metrics.text import distinct_words, mentions
from saelens_steer.tensors import Logits, PerRow

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


TokenSet = str | Sequence[str] | Sequence[int] | TokenSetSpec
"""The name of a shipped set, token strings, token ids, or a spec."""
MetricLike = str | MarginMetric | MentionsMetric | Mapping[str, object]
"""A shipped name, `package.module:function`, a `margin(…)`, or a metric as a config writes it."""


def margin(
    *, target: TokenSet, other: TokenSet | None = None, name: str = "margin"
) -> MarginMetric:
    """A metric for `metrics=[…]`: the largest target logit minus the largest other logit.

    `target`, `other`: token strings such as ["car", "Car"] (each with and without a leading
    space), token ids, or the name of a shipped set such as "latex_delimiters". other=None: every
    other token but special ones. Raises InputError for a set that is none of these.
    """
    given = {"name": name, "target": target, "other": other}
    return MarginMetric(margin=checked(MarginSpec, given, "margin"))


def metric_specs(metrics: Sequence[MetricLike]) -> tuple[MetricSpec, ...]:
    """The metrics as specs. Raises InputError for one that is not written as a metric."""
    if isinstance(metrics, str | Mapping):
        raise InputError(f"metrics should be a list, not {metrics!r}: write metrics=[{metrics!r}]")
    return tuple(_spec(metric) for metric in metrics)


def resolve_metrics(
    metrics: Sequence[MetricLike], tokenizer: PreTrainedTokenizerBase, d_vocab: int
) -> list[Metric]:
    """The functions of the metrics, in order.

    Tries users' functions once, so that they fail before any forward pass. Raises InputError, also
    if two metrics would write the same column.
    """
    found = [_resolve(spec, tokenizer, d_vocab) for spec in metric_specs(metrics)]
    _refuse_clashes([column for metric in found for column in metric.columns])
    return found


def check_starts(metrics: Sequence[Metric], prompts: Sequence[Encoded]) -> None:
    """Raise InputError if a metric judges answers from their beginning and a prompt ends elsewhere.

    Other metrics read the last prompt token, or what follows it, of any text.
    """
    judging = next((m.name for m in metrics if isinstance(m, TextMetric) and m.from_start), None)
    prompt = next((e for e in prompts if not e.at_start), None)
    if judging is None or prompt is None:
        return
    what = "is plain text" if prompt.kind == "plain" else "does not end where an answer begins"
    instead = "leave the metric out"
    if prompt.kind == "plain":
        instead = "give messages or chat=True (prompts.chat: true), or leave the metric out"
    raise InputError(
        f"{judging} judges an answer from its beginning, but prompt {prompt.prompt.id!r} {what}: "
        f"{instead}"
    )


def metric_provenance(
    metrics: Sequence[MetricLike], tokenizer: PreTrainedTokenizerBase, d_vocab: int
) -> dict[str, dict[str, Any]]:
    """margin name → its token sets: `target` as text, `n_target`, `n_other`, `other` if given."""
    margins = [s.margin for s in metric_specs(metrics) if isinstance(s, MarginMetric)]
    about: dict[str, dict[str, Any]] = {}
    for spec in margins:
        target, other = (ids.tolist() for ids in _margin_sets(spec, tokenizer, d_vocab))
        about[spec.name] = {"target": describe(target, tokenizer)}
        if spec.other is not None:
            about[spec.name]["other"] = describe(other, tokenizer)
        about[spec.name] |= {"n_target": len(target), "n_other": len(other)}
    return about


def _resolve(spec: MetricSpec, tokenizer: PreTrainedTokenizerBase, d_vocab: int) -> Metric:
    if isinstance(spec, MarginMetric):
        return _margin_metric(spec.margin, tokenizer, d_vocab)
    if isinstance(spec, MentionsMetric):
        return _text_metric(spec.mentions.name, partial(mentions, words=spec.mentions.words))
    if ":" in spec:
        return custom_metric(spec, d_vocab)
    if spec not in SHIPPED:
        raise InputError(
            f"unknown metric {spec!r}; {or_known(spec, SHIPPED)}, "
            "or name a function as package.module:function"
        )
    return SHIPPED[spec]


def _spec(spec: object) -> MetricSpec:
    if isinstance(spec, str | MarginMetric | MentionsMetric):
        return spec
    form = MentionsMetric if isinstance(spec, Mapping) and "mentions" in spec else MarginMetric
    try:
        return form.model_validate(spec)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise InputError(
            "a metric is a shipped name, a margin, mentions, or package.module:function, not "
            f"{spec!r} ({where}: {problem['msg']})"
        ) from None


def _refuse_clashes(names: list[str]) -> None:
    for i, name in enumerate(names):
        if name in names[:i]:
            raise InputError(f"two metrics write the column {name!r}: rename or leave out one")
        if not name.strip():
            raise InputError("a metric needs a name that is not empty")
        if name in TABLE_COLUMNS or any(name == f"{n}{s}" for n in names for s in SUFFIXES):
            raise InputError(
                f"a metric cannot be called {name!r}: the result tables have that column; rename it"
            )


def _margin_metric(
    spec: MarginSpec, tokenizer: PreTrainedTokenizerBase, d_vocab: int
) -> LogitMetric:
    """A margin as a function; it reads only the tokens of its sets if both are given."""
    target, other = sets = _margin_sets(spec, tokenizer, d_vocab)
    reads = None
    if spec.other is not None:
        reads = torch.cat(sets)
        target, other = torch.arange(len(reads)).split([len(target), len(other)])
    fn = partial(_margin, target=target, other=other)
    return LogitMetric(spec.name, fn, reads, sets)


def _margin(logits: Logits, *, baseline: Logits, target: Tensor, other: Tensor) -> PerRow:  # noqa: ARG001
    return logit_margin(logits, target, other)


def _margin_sets(
    spec: MarginSpec, tokenizer: PreTrainedTokenizerBase, d_vocab: int
) -> tuple[Tensor, Tensor]:
    target = token_set(spec.target, tokenizer, d_vocab)
    if spec.other is None:
        other = complement(target, tokenizer, d_vocab)
    else:
        other = token_set(spec.other, tokenizer, d_vocab)
    if shared := sorted(set(target) & set(other)):
        names = ", ".join(map(repr, describe(shared[:3], tokenizer)))
        raise InputError(f"margin {spec.name!r}: target and other share {names}; make them differ")
    if not other:
        raise InputError(f"margin {spec.name!r}: the target is the whole vocabulary; narrow it")
    return torch.tensor(target), torch.tensor(other)


def _rates(name: str, validity: Callable[[str, bool], Validity]) -> TextMetric:
    """1.0 if valid, in one column of all completions and one of those with a complete example."""

    def fn(text: str, truncated: bool) -> dict[str, float]:
        verdict = validity(text, truncated)
        valid = float(verdict == "valid")
        judged = verdict in ("valid", "invalid")
        return {f"{name}_valid": valid, f"{name}_valid_present": valid if judged else float("nan")}

    columns = (f"{name}_valid", f"{name}_valid_present")
    return TextMetric(f"{name}_validity", columns, fn, from_start=True)


def _text_metric(name: str, of: Callable[[str], float], from_start: bool = False) -> TextMetric:
    """A text metric with one column, of the same name."""
    fn = lambda text, truncated: {name: float(of(text))}  # noqa: ARG005, E731
    return TextMetric(name, (name,), fn, from_start)


SHIPPED: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        KL,
        _rates("code", code_validity),
        _rates("latex", latex_validity),
        _text_metric("latex_first", latex_first, from_start=True),
        _text_metric("distinct_words", distinct_words),
    )
}
"""The metrics that come with the package."""
