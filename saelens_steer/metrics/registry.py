"""From the metrics that a config or a call names to the functions that compute them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from transformers import PreTrainedTokenizerBase

from saelens_steer.config import (
    FORMS,
    LogProbMetric,
    LogProbSpec,
    MarginMetric,
    MarginSpec,
    MentionsMetric,
    MetricSpec,
    TokenSetSpec,
    check_columns,
    check_metric,
    checked,
)
from saelens_steer.data import Encoded, describe
from saelens_steer.errors import InputError, shortened
from saelens_steer.files import digest
from saelens_steer.functions import function_version
from saelens_steer.metrics.code import Validity, code_validity
from saelens_steer.metrics.custom import FunctionMetric
from saelens_steer.metrics.fingerprint import UnknownContentError, fingerprint
from saelens_steer.metrics.latex import latex_first, latex_validity
from saelens_steer.metrics.metric import KL, Metric, TextMetric
from saelens_steer.metrics.text import distinct_words, mentions
from saelens_steer.metrics.token_metrics import (
    log_prob_metric,
    log_prob_sets,
    margin_metric,
    margin_sets,
)
from saelens_steer.no_tokenizer import check_tokenizer
from saelens_steer.progress import say_once

TokenSet = str | Sequence[str] | Sequence[int] | TokenSetSpec
"""The name of a built-in set, token strings, token ids, or a spec."""
MetricForm = MarginMetric | LogProbMetric | MentionsMetric | FunctionMetric | Mapping[str, object]
MetricLike = str | MetricForm | Callable[..., object]
"""The name of a built-in metric, a `margin(…)` or `log_prob(…)`, a function of `logits` or of
`text`, {name: function}, a name `package.module:function`, or a metric as a config writes it."""
MetricsLike = Sequence[MetricLike] | Mapping[str, Callable[..., object]]
"""A list of metrics, or {name: function}, in which margins and log-probabilities count as well."""
Asked = MetricSpec | FunctionMetric
"""A metric as a sweep keeps it."""


def margin(
    *, target: TokenSet, other: TokenSet | None = None, name: str = "margin"
) -> MarginMetric:
    """A metric for `metrics=[…]`: the largest target logit minus the largest other logit.

    `target`, `other`: token strings such as ["car", "Car"] (each with and without a leading
    space), token ids, or the name of a shipped set such as "latex_delimiters". other=None: all
    other tokens except special ones. Raises InputError for a set that is none of these.
    """
    given = {"name": name, "target": target, "other": other}
    return MarginMetric(margin=checked(MarginSpec, given, "margin"))


def log_prob(
    *, target: TokenSet, excluding: TokenSet | None = None, name: str = "log_prob"
) -> LogProbMetric:
    """A metric for `metrics=[…]`: log p(next token in target | not in excluding), in nats.

    If only tokens of `excluding` gain, a margin or a plain log-probability falls, but this does
    not move. Token sets are written as in `margin`; excluding=None leaves out none. Raises
    InputError for a set that is none of these.
    """
    given = {"name": name, "target": target, "excluding": excluding}
    return LogProbMetric(log_prob=checked(LogProbSpec, given, "log_prob"))


def metric_specs(metrics: MetricsLike) -> tuple[Asked, ...]:
    """The metrics as specs or named functions. Raises InputError for one that is neither."""
    if isinstance(metrics, Mapping) and _names_metrics(metrics):
        metrics = [metrics]
    if isinstance(metrics, str | Mapping) or callable(metrics):
        shown = getattr(metrics, "__name__", None) or repr(metrics)
        if isinstance(metrics, Mapping) and len(metrics) > 1:
            each = (repr(m) if isinstance(m, str) else f"{{{n!r}: …}}" for n, m in metrics.items())
            raise InputError(f"metrics should be a list: write metrics=[{', '.join(each)}]")
        raise InputError(f"metrics should be a list, not {shown}: write metrics=[{shown}]")
    if not isinstance(metrics, Iterable):
        raise InputError(f"metrics should be a list such as ['kl'], not {shortened(metrics)}")
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
        return [function_version(spec, "metric"), _version(FunctionMetric.imported(spec), fresh)]
    try:
        return [spec.name, fingerprint(spec.function)]
    except UnknownContentError as reads:
        say_once(
            fingerprint,
            f"metric {spec.name!r} reads {reads}, whose content cannot be compared with an earlier "
            "run's, so its values are measured again in every run",
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
    own = [m for m in found if m is not SHIPPED.get(m.name)]
    check_columns(*([column for m in some for column in m.columns] for some in (found, own)))
    if judging := next((m.name for m in found if isinstance(m, TextMetric)), None):
        check_tokenizer(tokenizer, f"{judging}, a metric of texts,")
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
    """Name → token sets of margins and log-probabilities: `target` (and `other` or `excluding` if
    given) as text, and how many tokens each has."""
    about: dict[str, dict[str, Any]] = {}
    for spec in metric_specs(metrics):
        if isinstance(spec, MarginMetric):
            own, beside, given = spec.margin, "other", spec.margin.other
            sets = margin_sets(own, tokenizer, d_vocab)
        elif isinstance(spec, LogProbMetric):
            own, beside, given = spec.log_prob, "excluding", spec.log_prob.excluding
            sets = log_prob_sets(own, tokenizer, d_vocab)
        else:
            continue
        target, others = (ids.tolist() for ids in sets)
        about[own.name] = {"target": describe(target, tokenizer)}
        if given is not None:
            about[own.name][beside] = describe(others, tokenizer)
        about[own.name] |= {"n_target": len(target), f"n_{beside}": len(others)}
    return about


def _resolve(spec: Asked, tokenizer: PreTrainedTokenizerBase, d_vocab: int, device: str) -> Metric:
    if isinstance(spec, MarginMetric):
        return margin_metric(spec.margin, tokenizer, d_vocab)
    if isinstance(spec, LogProbMetric):
        return log_prob_metric(spec.log_prob, tokenizer, d_vocab)
    if isinstance(spec, MentionsMetric):
        return _text_metric(spec.mentions.name, partial(mentions, words=spec.mentions.words))
    if isinstance(spec, FunctionMetric):
        return spec.metric(d_vocab, device)
    if ":" in spec:
        return FunctionMetric.imported(spec).metric(d_vocab, device, spec)
    return SHIPPED[spec]


def _names_metrics(given: Mapping[str, object]) -> bool:
    """Whether a mapping is {name: metric}, and not a metric as a config writes it."""
    named = MarginMetric, LogProbMetric
    return bool(given) and all(callable(one) or isinstance(one, named) for one in given.values())


def _named(name: str, metric: Any) -> Asked:
    """A function or a `margin(…)` or `log_prob(…)` under another name."""
    if not isinstance(metric, MarginMetric | LogProbMetric):
        return FunctionMetric(name, metric)
    form = "margin" if isinstance(metric, MarginMetric) else "log_prob"
    given = metric.model_dump()
    return checked(type(metric), {form: {**given[form], "name": name}}, "metrics")


def _specs(metric: object) -> list[Asked]:
    """One metric as a spec; {name: function} may name several."""
    if isinstance(metric, str):
        return [check_metric(metric)]
    if isinstance(metric, MarginMetric | LogProbMetric | MentionsMetric | FunctionMetric):
        return [metric]
    if isinstance(metric, Mapping) and _names_metrics(metric):
        return [_named(str(name), one) for name, one in metric.items()]
    if callable(metric):  # `ss.kl` is the shipped metric itself
        shipped = [name for name, known in SHIPPED.items() if known.fn is metric]
        return [*shipped] or [FunctionMetric.of(metric)]
    if not isinstance(metric, Mapping):
        raise InputError(
            "a metric is the name of a built-in one, a margin, a log_prob, mentions, a function, "
            f"or package.module:function, not {metric!r}"
        )
    form = next((form for key, form in FORMS.items() if key in metric), MarginMetric)
    return [checked(form, dict(metric), "metrics")]


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
