"""Progress bars on stderr, with an estimate of the time left."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

Note = Callable[[int], None]
"""Called with the number of rows that have just been finished."""


def unnoted(rows: int) -> None:
    """Report nothing."""


def say(text: str) -> None:
    """One line on stderr."""
    _console().print(text, markup=False, soft_wrap=True)


@contextlib.contextmanager
def progress(what: str, total: int | None) -> Iterator[Note]:
    """Show a bar while the block runs; call the yielded function with each number of rows done."""
    if total == 0:
        yield unnoted
        return
    parts = [SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()]
    times = [TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn()]
    with Progress(*parts, *times, console=_console()) as bar:
        task = bar.add_task(what, total=total)
        yield lambda rows: bar.advance(task, rows)


def _console() -> Console:
    """stderr, in notebooks too: rich's widgets need ipywidgets, which few have installed."""
    return Console(stderr=True, highlight=False, force_jupyter=False)
