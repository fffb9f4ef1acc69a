"""Metrics: pure functions of logits and of text, and how a config names them."""

from saelens_steer.metrics.code import code_validity
from saelens_steer.metrics.custom import FunctionMetric
from saelens_steer.metrics.latex import latex_validity
from saelens_steer.metrics.metric import KL, LogitMetric, Metric, TextMetric, kl
from saelens_steer.metrics.registry import (
    Asked,
    MetricLike,
    MetricsLike,
    check_starts,
    log_prob,
    margin,
    metric_provenance,
    metric_specs,
    metrics_version,
    resolve_metrics,
)
from saelens_steer.metrics.text import (
    completion_of,
    distinct_words,
    read_completion,
    text_values,
    thought_tags,
)
