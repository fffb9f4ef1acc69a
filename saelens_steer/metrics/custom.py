"""Metrics that users write: functions, or `package.module:function`."""

from __future__ import annotations

import importlib
import inspect
import linecache
import math
import numbers
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from saelens_steer.config import plain
from saelens_steer.errors import InputError, or_known
from saelens_steer.metrics.metric import LogitMetric, Metric, TextMetric
from saelens_steer.tensors import Logits, PerRow

SHAPES = "(logits), (logits, baseline), (text) or (text, truncated)"
TRIAL_ROWS = 3
TRIAL_TEXT = "One line,\nand another."
Call = Callable[[Any, Any], Any]
"""A user's function, called with logits and baseline, or with a completion and `truncated`."""

_CHANGED: dict[str, int | None] = {}
"""Imported metric module → modification time of its file when it was read."""


@dataclass(frozen=True)
class FunctionMetric:
    """A user's function as a metric, and the name of its column."""

    name: str
    function: Callable[..., Any]

    @property
    def path(self) -> str:
        """Where it is from, as `module:name`."""
        return f"{getattr(self.function, '__module__', '') or '__main__'}:{self.name}"

    @classmethod
    def of(cls, function: Callable[..., Any]) -> FunctionMetric:
        """Named as the function is, or the function inside a `partial`, or an object's class.

        Raises InputError for a lambda.
        """
        named = function
        while isinstance(named, partial):
            named = named.func
        name = getattr(named, "__name__", None) or type(named).__name__
        if name == "<lambda>":
            raise InputError(
                'a lambda has no name: write metrics=[{"name": lambda logits: …}], with the name '
                "of its column"
            )
        return cls(name, function)

    @classmethod
    def imported(cls, path: str) -> FunctionMetric:
        """The function behind `package.module:function`. Raises InputError."""
        return cls(path.rpartition(":")[2].rpartition(".")[2], imported(path))

    def metric(self, d_vocab: int, device: str = "cpu", path: str | None = None) -> Metric:
        """The metric, tried once on this device.

        `path`, or else its name, stands for it in messages. Raises InputError.

        The first parameter decides. `logits`: a logit metric, called with [batch, d_vocab] logits
        and, if it has a second parameter or a keyword `baseline`, the unsteered ones; returns one
        number per row. `text` or `completion`: a text metric, called with a completion and, if it
        has a second parameter or a keyword `truncated`, whether the token limit cut it; returns a
        number or bool (the column has the metric's name), or a mapping column → number. Its columns
        are the function's attribute `columns`, or what it returns for an empty completion.
        """
        path = path or self.name
        first, call = _called(path, self.function)
        if first == "logits":
            fn = partial(_rows, path, call)
            _try_on_logits(path, fn, d_vocab, device)
            return LogitMetric(self.name, fn)
        columns = _columns(path, self.function, call, self.name)
        metric = TextMetric(self.name, columns, partial(_numbers, path, call, columns, self.name))
        metric.fn(TRIAL_TEXT, False)
        return metric


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


def _called(path: str, function: Callable[..., Any]) -> tuple[str, Call]:
    """Name of the first parameter, and the function as one of the two values that it accepts."""
    module = isinstance(function, torch.nn.Module)
    try:
        signature = inspect.signature(function.forward if module else function)
    except (TypeError, ValueError):
        raise InputError(f"metric {path!r} has no readable signature; write {SHAPES}") from None
    parameters = list(signature.parameters.values())
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    taken = [p for p in parameters if p.kind in plain]
    needed = [p for p in parameters if p.default is p.empty and "VAR" not in p.kind.name]
    first = taken[0].name if taken else ""
    second = taken[1].name if len(taken) > 1 else ""
    more = "baseline" if first == "logits" else "truncated"
    keywords = [p for p in parameters if p.kind is p.KEYWORD_ONLY and p.name == more]
    n = 2 if second.startswith(more) else 1
    if first not in ("logits", "text", "completion") or not {*needed} <= {*taken[:n], *keywords}:
        raise InputError(
            f"metric {path!r} takes ({', '.join(p.name for p in parameters)}); its parameters "
            f"must be {SHAPES}"
        )
    if keywords:
        return first, lambda one, two: function(one, **{more: two})
    return first, lambda one, two: function(*(one, two)[:n])


def _rows(path: str, call: Call, logits: Logits, *, baseline: Logits) -> PerRow:
    """Call a user's logit metric. Raises InputError unless it returns one number per row."""
    result = _answer(path, f"logits of shape {list(logits.shape)}", lambda: call(logits, baseline))
    try:
        rows = torch.as_tensor(result, device=logits.device)
        if rows.is_complex():
            raise TypeError
    except (TypeError, ValueError, RuntimeError):
        raise InputError(
            f"metric {path!r} must return a tensor of numbers, not {_described(result)}"
        ) from None
    if rows.shape != logits.shape[:1]:
        raise InputError(
            f"metric {path!r} must return one number per row, shape {list(logits.shape[:1])}, "
            f"not {list(rows.shape)}"
        )
    rows = rows.float()
    if bool(rows.isinf().any()):
        raise InputError(f"metric {path!r} returned an infinite value: return NaN if undefined")
    return rows if logits.requires_grad else rows.detach()


def _try_on_logits(path: str, fn: Any, d_vocab: int, device: str) -> None:
    """Raise InputError unless a logit metric gives numbers for random logits, left as they are."""
    draws = (torch.Generator().manual_seed(seed) for seed in (0, 1))
    given = [torch.randn(TRIAL_ROWS, d_vocab, generator=draw).to(device) for draw in draws]
    logits, baseline = (one.clone() for one in given)
    rows = fn(logits, baseline=baseline)
    if bool(rows.isnan().all()):
        raise InputError(f"metric {path!r} returned NaN for every row when tried on random logits")
    if not (torch.equal(logits, given[0]) and torch.equal(baseline, given[1])):
        raise InputError(f"metric {path!r} changes the logits that it is given: clone them first")


def _numbers(
    path: str, call: Call, columns: tuple[str, ...], name: str, text: str, truncated: bool
) -> dict[str, float]:
    """Call a user's text metric. Raises InputError unless it returns a number per column."""
    result = _answer(path, f"the completion {text[:40]!r}", lambda: call(text, truncated))
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
    number = plain(value)
    while isinstance(number, list) and len(number) == 1:
        number = number[0]
    if not isinstance(number, numbers.Real):
        raise InputError(f"metric {path!r} must return numbers, not {_described(value)}")
    if math.isinf(number):
        raise InputError(f"metric {path!r} returned an infinite value: return NaN if undefined")
    return float(number)


def _described(value: Any) -> str:
    """The type of a value, and the shape of an array."""
    shape = getattr(value, "shape", None)
    return type(value).__name__ + (f" of shape {list(shape)}" if shape else "")


def _columns(path: str, function: Callable[..., Any], call: Call, name: str) -> tuple[str, ...]:
    declared = getattr(function, "columns", None)
    if declared is None:
        result = _answer(path, "an empty completion", lambda: call("", False))
        declared = tuple(result) if isinstance(result, Mapping) else (name,)
        for value in result.values() if isinstance(result, Mapping) else [result]:
            _number(path, value)
    if isinstance(declared, str) or not declared or not all(isinstance(c, str) for c in declared):
        raise InputError(
            f"metric {path!r} must name its columns: return them for an empty completion, or set "
            "the function's attribute `columns` to a tuple of names"
        )
    return tuple(declared)


def _answer(path: str, inputs: str, call: Callable[[], Any]) -> Any:
    """The result of `call`; an error of the metric's own becomes InputError."""
    try:
        return call()
    except (InputError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise InputError(
            f"metric {path!r} failed on {inputs}: {type(error).__name__}: {error}"
        ) from error
