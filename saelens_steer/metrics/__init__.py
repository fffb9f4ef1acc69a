"""Pure functions of logits and of text, and how a config names them."""

from saelens_steer.metrics.code import code_validity
from saelens_steer.metrics.kinds import LogitMetric, Metric, TextMetric
from saelens_steer.metrics.latex import latex_first, latex_validity
from saelens_steer.metrics.logits import kl, margin
from saelens_steer.metrics.registry import columns, metric_provenance, resolve_metrics
from saelens_steer.metrics.score import steering_effect
from saelens_steer.metrics.texts import completion_of, read_completion, text_values
from saelens_steer.metrics.version import metrics_version
from saelens_steer.metrics.words import distinct_words

__all__ = [
    "LogitMetric",
    "Metric",
    "TextMetric",
    "code_validity",
    "columns",
    "completion_of",
    "distinct_words",
    "kl",
    "latex_first",
    "latex_validity",
    "margin",
    "metric_provenance",
    "metrics_version",
    "read_completion",
    "resolve_metrics",
    "steering_effect",
    "text_values",
]
