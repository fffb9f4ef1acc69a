"""A digest of what the metrics compute, so that a changed validator is not served old answers."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from typing import Any

from saelens_steer.config import MetricSpec
from saelens_steer.errors import InputError
from saelens_steer.files import digest
from saelens_steer.metrics.custom import imported


def metrics_version(specs: Sequence[MetricSpec]) -> str:
    """Digest of the specs, and of the source of each module that a user's own metric lives in.

    Modules which that one imports are not looked at.
    """
    own = [imported(spec) for spec in specs if isinstance(spec, str) and ":" in spec]
    plain = [spec if isinstance(spec, str) else spec.model_dump() for spec in specs]
    return digest(plain, [_source(function) for function in own])


def _source(function: Callable[..., Any]) -> str:
    """The text of the module a function stands in; InputError where it stands in no file."""
    try:
        return inspect.getsource(sys.modules[function.__module__])
    except (OSError, TypeError, KeyError):
        raise InputError(
            f"the metric {function!r} stands in no source file: put it in a module of its own"
        ) from None
