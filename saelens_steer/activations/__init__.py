"""Residuals at a hook: which tokens are kept, where each came from, in memory or on disk."""

from saelens_steer.activations.cache import (
    cache_activations,
    keep_ordinary,
    with_answers,
    without_sinks,
)
from saelens_steer.activations.store import Activations
