"""Pure functions of logits and of text, and how a config names them."""

from saelens_steer.metrics.code import code_validity
from saelens_steer.metrics.kinds import LogitMetric, Metric, TextMetric
from saelens_steer.metrics.latex import latex_validity
from saelens_steer.metrics.logits import kl
from saelens_steer.metrics.registry import metric_provenance, resolve_metrics
from saelens_steer.metrics.texts import completion_of, read_completion, text_values
from saelens_steer.metrics.version import metrics_version
from saelens_steer.metrics.words import distinct_words
