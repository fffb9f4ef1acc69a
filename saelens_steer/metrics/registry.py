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
from saelens_steer.files import digest
from saelens_steer.metrics.code import Validity, code_validity
from saelens_steer.metrics.custom import FunctionMetric
from saelens_steer.metrics.fingerprint import UnknownContentError, fingerprint
from saelens_steer.metrics.latex import latex_first, latex_validity
from saelens_steer.metrics.metric import KL, LogitMetric, Metric, TextMetric, logit_margin
from saelens_steer.metrics.text import distinct_words, mentions
from saelens_steer.progress import say_once
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
MetricForm = MarginMetric | MentionsMetric | FunctionMetric | Mapping[str, object]
MetricLike = str | MetricForm | Callable[..., object]
"""A shipped name, a `margin(…)`, a function of `logits` or of `text`, {name: function}, a name
`package.module:function`, or a metric as a config writes it."""
MetricsLike = Sequence[MetricLike] | Mapping[str, Callable[..., object]]
"""A list of metrics, or {name: function}."""
Asked = MetricSpec | FunctionMetric
"""A metric as a sweep keeps it."""


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


def metric_specs(metrics: MetricsLike) -> tuple[Asked, ...]:
    """The metrics as specs or named functions. Raises InputError for one that is neither."""
    if isinstance(metrics, Mapping) and _names_functions(metrics):
        metrics = [metrics]
    if isinstance(metrics, str | Mapping) or callable(metrics):
        shown = getattr(metrics, "__name__", None) or repr(metrics)
        raise InputError(f"metrics should be a list, not {shown}: write metrics=[{shown}]")
    return tuple(spec for metric in metrics for spec in _specs(metric))


def metrics_version(metrics: MetricsLike, fresh: str) -> str:
    """Digest of what decides the metrics: their specs, and for functions the code and values read.

    A function that reads something whose content cannot be compared counts as another one for each
    `fresh`, which is said once.
    """
    return digest([_version(spec, fresh) for spec in metric_specs(metrics)])


def _version(spec: Asked, fresh: str) -> object:
    if not isinstance(spec, FunctionMetric):
        if not isinstance(spec, str):
            return spec.model_dump()
        if ":" not in spec:
            return spec
        spec = FunctionMetric.imported(spec)
    try:
        return [spec.name, fingerprint(spec.function)]
    except UnknownContentError as reads:
        say_once(
            fingerprint,
            f"metric {spec.name!r} reads {reads}, whose content cannot be compared with an earlier "
            "run's: its values are measured anew in every run",
        )
        return [spec.name, fresh]


def resolve_metrics(
    metrics: MetricsLike, tokenizer: PreTrainedTokenizerBase, d_vocab: int, device: str = "cpu"
) -> list[Metric]:
    """The functions of the metrics, in order.

    Tries users' functions once, on the device of the logits, so that they fail before any forward
    pass. Raises InputError, also if two metrics would write the same column.
    """
    found = [_resolve(spec, tokenizer, d_vocab, device) for spec in metric_specs(metrics)]
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
    metrics: MetricsLike, tokenizer: PreTrainedTokenizerBase, d_vocab: int
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


def _resolve(spec: Asked, tokenizer: PreTrainedTokenizerBase, d_vocab: int, device: str) -> Metric:
    if isinstance(spec, MarginMetric):
        return _margin_metric(spec.margin, tokenizer, d_vocab)
    if isinstance(spec, MentionsMetric):
        return _text_metric(spec.mentions.name, partial(mentions, words=spec.mentions.words))
    if isinstance(spec, FunctionMetric):
        return spec.metric(d_vocab, device)
    if ":" in spec:
        return FunctionMetric.imported(spec).metric(d_vocab, device, spec)
    if spec not in SHIPPED:
        raise InputError(
            f"unknown metric {spec!r}; {or_known(spec, SHIPPED)}, "
            "or name a function as package.module:function"
        )
    return SHIPPED[spec]


def _names_functions(given: Mapping[str, object]) -> bool:
    """Whether a mapping is {name: function}, and not a metric as a config writes it."""
    return bool(given) and all(callable(one) for one in given.values())


def _specs(metric: object) -> list[Asked]:
    """One metric as a spec; {name: function} may name several."""
    if isinstance(metric, str | MarginMetric | MentionsMetric | FunctionMetric):
        return [metric]
    if isinstance(metric, Mapping) and _names_functions(metric):
        return [FunctionMetric(str(name), function) for name, function in metric.items()]
    if callable(metric):
        return [FunctionMetric.of(metric)]
    form = MentionsMetric if isinstance(metric, Mapping) and "mentions" in metric else MarginMetric
    try:
        return [form.model_validate(metric)]
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise InputError(
            "a metric is a shipped name, a margin, mentions, a function, or "
            f"package.module:function, not {metric!r} ({where}: {problem['msg']})"
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
