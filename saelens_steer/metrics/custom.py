"""Metrics that users write: `package.module:function`."""

from __future__ import annotations

import importlib
import inspect
import linecache
import numbers
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from saelens_steer.config import MetricSpec
from saelens_steer.errors import InputError, or_known
from saelens_steer.files import digest
from saelens_steer.metrics.metric import LogitMetric, Metric, TextMetric
from saelens_steer.tensors import Logits, PerRow

SHAPES = "(logits), (logits, baseline), (text) or (text, truncated)"
TRIAL_ROWS = 3

_CHANGED: dict[str, int | None] = {}
"""Imported metric module → modification time of its file when it was read."""


def custom_metric(path: str, d_vocab: int) -> Metric:
    """The metric behind `package.module:function`, tried once. Raises InputError.

    The first parameter decides. `logits`: a logit metric, called with [batch, d_vocab] logits and,
    if it has a second parameter, the unsteered ones; returns one number per row. `text` or
    `completion`: a text metric, called with a completion and, if it has a second parameter,
    whether the token limit cut it; returns a number or bool (the column has the function's name)
    or a mapping column → number. A mapping's columns are the function's attribute `columns`, or
    what it returns for an empty completion.
    """
    function = imported(path)
    first, n = _parameters(path, function)
    name = path.rpartition(":")[2].rpartition(".")[2]
    if first == "logits":
        fn = partial(_rows, path, function, n)
        draws = (torch.Generator().manual_seed(seed) for seed in (0, 1))
        logits, baseline = (torch.randn(TRIAL_ROWS, d_vocab, generator=draw) for draw in draws)
        _trial(path, "random logits", lambda: fn(logits, baseline=baseline))
        return LogitMetric(name, fn)
    columns = _columns(path, function, n, name)
    return TextMetric(name, columns, partial(_numbers, path, function, n, columns, name))


def metrics_version(specs: Sequence[MetricSpec]) -> str:
    """Digest of the specs and of the source of the modules that define users' metrics.

    Modules that these import are not covered.
    """
    own = [imported(spec) for spec in specs if isinstance(spec, str) and ":" in spec]
    plain = [spec if isinstance(spec, str) else spec.model_dump() for spec in specs]
    return digest(plain, [source_of(function) for function in own])


def source_of(function: Callable[..., Any]) -> str:
    """Source of the module that defines a function. Raises InputError if it has no file."""
    try:
        return inspect.getsource(sys.modules[function.__module__])
    except (OSError, TypeError, KeyError):
        raise InputError(f"{function!r} has no source file: define it in a .py file") from None


def imported(path: str, what: str = "metric") -> Callable[..., Any]:
    """The function behind `package.module:function`. Raises InputError."""
    module_name, _, attribute = path.partition(":")
    with _working_directory_importable():
        try:
            found: Any = _fresh(importlib.import_module(module_name))
        except Exception as error:
            raise InputError(
                f"{what} {path!r}: cannot import {module_name!r} "
                f"({type(error).__name__}: {error}); is it installed or in this directory?"
            ) from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            public = sorted(n for n, v in vars(found).items() if callable(v) and n[0] != "_")
            raise InputError(f"{what} {path!r}: no {part!r} there; {or_known(part, public)}")
        found = getattr(found, part)
    if not callable(found):
        raise InputError(f"{what} {path!r} is a {type(found).__name__}, not a function")
    return found


def _fresh(module: ModuleType) -> ModuleType:
    """The module, reloaded if its file has changed since the import, as it does in a notebook."""
    file = getattr(module, "__file__", None)
    changed = Path(file).stat().st_mtime_ns if file and Path(file).is_file() else None
    if _CHANGED.setdefault(module.__name__, changed) != changed:
        _CHANGED[module.__name__] = changed
        linecache.checkcache(file)
        return importlib.reload(module)
    return module


@contextmanager
def _working_directory_importable() -> Iterator[None]:
    """Append the working directory to sys.path: last, so that it shadows nothing installed."""
    here = str(Path.cwd())
    sys.path.append(here)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        if here in sys.path:
            del sys.path[len(sys.path) - 1 - sys.path[::-1].index(here)]


def _parameters(path: str, function: Callable[..., Any]) -> tuple[str, int]:
    """Name of the first parameter, and how many of the two values the function accepts."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        raise InputError(f"metric {path!r} has no readable signature; write {SHAPES}") from None
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    taken = [p for p in parameters if p.kind in plain]
    needed = [p for p in parameters if p.default is p.empty and "VAR" not in p.kind.name]
    first = taken[0].name if taken else ""
    second = taken[1].name if len(taken) > 1 else ""
    ours = second.startswith("baseline") or second == "truncated"
    n = 2 if ours or (taken[1:2] and taken[1] in needed) else 1
    if first not in ("logits", "text", "completion") or not set(needed) <= set(taken[:n]):
        raise InputError(
            f"metric {path!r} takes ({', '.join(p.name for p in parameters)}); its parameters "
            f"must be {SHAPES}"
        )
    return first, n


def _rows(
    path: str, function: Callable[..., Any], n: int, logits: Logits, *, baseline: Logits
) -> PerRow:
    """Call a user's logit metric. Raises InputError unless it returns one number per row."""
    result = function(*(logits, baseline)[:n])
    try:
        rows = torch.as_tensor(result, device=logits.device).detach().float()
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"metric {path!r} must return a tensor, not {type(result)}") from None
    if rows.shape != logits.shape[:1]:
        raise InputError(
            f"metric {path!r} must return one number per row, shape {list(logits.shape[:1])}, "
            f"not {list(rows.shape)}"
        )
    return rows


def _numbers(
    path: str, function: Callable[..., Any], n: int, columns: tuple[str, ...], name: str,
    text: str, truncated: bool,
) -> dict[str, float]:  # fmt: skip
    """Call a user's text metric. Raises InputError unless it returns a number per column."""
    result = function(*(text, truncated)[:n])
    values = result if isinstance(result, Mapping) else {name: result}
    if set(values) != set(columns):
        raise InputError(
            f"metric {path!r} returned the columns {sorted(map(str, values))}, not "
            f"{sorted(columns)}: return the same ones for every text"
        )
    return {column: _number(path, values[column]) for column in columns}


def _number(path: str, value: Any) -> float:
    if value is None:
        return float("nan")
    if isinstance(value, numbers.Real) or (hasattr(value, "item") and getattr(value, "size", 0)):
        return float(value)
    raise InputError(f"metric {path!r} must return numbers, not {type(value).__name__}")


def _columns(path: str, function: Callable[..., Any], n: int, name: str) -> tuple[str, ...]:
    declared = getattr(function, "columns", None)
    if declared is None:
        trial = partial(function, *("", False)[:n])
        result = _trial(path, "an empty completion", trial)
        declared = tuple(result) if isinstance(result, Mapping) else (name,)
        for value in result.values() if isinstance(result, Mapping) else [result]:
            _number(path, value)
    if isinstance(declared, str) or not declared or not all(isinstance(c, str) for c in declared):
        raise InputError(
            f"metric {path!r} must name its columns: return them for an empty completion, or set "
            "the function's attribute `columns` to a tuple of names"
        )
    return tuple(declared)


def _trial(path: str, inputs: str, call: Callable[[], Any]) -> Any:
    """The result of `call`; an error of the metric's own becomes InputError."""
    try:
        return call()
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"metric {path!r} failed when tried on {inputs}: {type(error).__name__}: {error}"
        ) from error
