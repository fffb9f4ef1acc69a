"""Residuals at a hook: which tokens are kept, where each came from, in memory or on disk."""

from saelens_steer.activations.answers import with_answers
from saelens_steer.activations.cache import cache_activations
from saelens_steer.activations.store import Activations
from saelens_steer.activations.tokens import keep_ordinary, without_sinks
