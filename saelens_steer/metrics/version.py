"""A digest of what the metrics compute, so that a changed validator is not served old answers."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Sequence

from saelens_steer.config import MetricSpec
from saelens_steer.files import digest
from saelens_steer.metrics.custom import imported


def metrics_version(specs: Sequence[MetricSpec]) -> str:
    """Digest of the specs, and of the source of each module that a user's own metric lives in."""
    own = [imported(spec) for spec in specs if isinstance(spec, str) and ":" in spec]
    sources = [inspect.getsource(sys.modules[function.__module__]) for function in own]
    return digest([s if isinstance(s, str) else s.model_dump() for s in specs], sources)
