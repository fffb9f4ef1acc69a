"""Metrics that users write: functions, or `package.module:function`."""

from __future__ import annotations

import math
import numbers
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from saelens_steer.config import plain
from saelens_steer.errors import InputError
from saelens_steer.functions import Call, called, imported
from saelens_steer.metrics.metric import LogitMetric, Metric, TextMetric
from saelens_steer.progress import say, say_once
from saelens_steer.tensors import Logits, PerRow

TRIAL_ROWS = 3
PATIENCE = 60.0
"""Seconds after which a call that is still running is named."""
TRIAL_TEXT = "One line,\nand another."


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
        first, call = called(path, self.function)
        if first == "logits":
            fn = partial(_rows, path, call)
            _try_on_logits(path, fn, d_vocab, device)
            return LogitMetric(self.name, fn)
        columns = _columns(path, self.function, call, self.name)
        metric = TextMetric(self.name, columns, partial(_numbers, path, call, columns, self.name))
        metric.fn(TRIAL_TEXT, False)
        return metric


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
        _note_infinite(path)
    return rows if logits.requires_grad else rows.detach()


def _try_on_logits(path: str, fn: Any, d_vocab: int, device: str) -> None:
    """Raise InputError unless a logit metric gives numbers for random logits, left as they are."""
    draws = (torch.Generator().manual_seed(seed) for seed in (0, 1))
    given = [torch.randn(TRIAL_ROWS, d_vocab, generator=draw).to(device) for draw in draws]
    logits, baseline = (one.clone() for one in given)
    rows = fn(logits, baseline=baseline)
    if bool(rows.isinf().all()):
        raise InputError(
            f"metric {path!r} returned an infinite value for every row when tried on random "
            "logits: return a bounded value"
        )
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
    if not math.isinf(number):
        return float(number)
    _note_infinite(path)
    return math.nan


def _note_infinite(path: str) -> None:
    """Say once for each metric that its infinite values are left out."""
    say_once(
        _note_infinite,
        f"warning: metric {path!r} returned an infinite value, which counts as undefined and is "
        "left out of every mean: return NaN there, or a bounded value",
    )


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
    """The result of `call`; an error of the metric's own becomes InputError, as sys.exit() does.

    A call that takes longer than PATIENCE is named and goes on: Python cannot end a function from
    outside, nor keep one from ending the process by os._exit.
    """
    named = f"metric {path!r} has been busy with {inputs} for {PATIENCE:g} s"
    timer = threading.Timer(PATIENCE, say, [f"{named}; interrupt the run if it never ends"])
    timer.daemon = True
    timer.start()
    try:
        return call()
    except (InputError, MemoryError, torch.OutOfMemoryError):
        raise
    except (Exception, SystemExit) as error:
        raise InputError(
            f"metric {path!r} failed on {inputs}: {type(error).__name__}: {error}"
        ) from error
    finally:
        timer.cancel()
