"""Progress bars and messages on stderr."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from weakref import WeakKeyDictionary

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
"""Call it with the number of rows just finished."""
_said = WeakKeyDictionary[object, set[str]]()
"""What `say_once` has printed about each object."""


def unnoted(rows: int) -> None:
    """The `Note` that ignores its argument."""


def say(text: str) -> None:
    """Print a line to stderr."""
    _console().print(text, markup=False, soft_wrap=True)


def say_once(about: object, text: str) -> None:
    """Print a line to stderr, once for each object that it is about."""
    said = _said.setdefault(about, set())
    if text not in said:
        said.add(text)
        say(text)


@contextlib.contextmanager
def progress(what: str, total: int | None) -> Iterator[Note]:
    """Show a progress bar inside the context; the yielded `Note` advances it."""
    if total == 0:
        yield unnoted
        return
    parts = [SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()]
    times = [TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn()]
    with Progress(*parts, *times, console=_console()) as bar:
        task = bar.add_task(what, total=total)
        yield lambda rows: bar.advance(task, rows)


def _console() -> Console:
    """stderr, in notebooks too: rich's widgets need ipywidgets, which is often missing."""
    return Console(stderr=True, highlight=False, force_jupyter=False)
