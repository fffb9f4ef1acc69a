"""Cached residuals at a hook, with an index of their tokens, in memory or on disk."""

from saelens_steer.activations.cache import (
    cache_activations,
    keep_ordinary,
    with_answers,
    without_sinks,
)
from saelens_steer.activations.store import Activations, At
