"""Progress on stderr: bars in a terminal, a line every half minute elsewhere; messages."""

from __future__ import annotations

import contextlib
import threading
import time
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

INTERVAL = 30.0
"""Seconds between lines of progress outside a terminal."""
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
    """Show progress inside the context; the yielded `Note` advances it. total=None: unknown.

    In a terminal a bar with the time left. In a log file or a notebook a line of text every half
    minute, even while nothing advances; phases shorter than that print nothing.
    """
    if total == 0:
        yield unnoted
        return
    if not is_terminal():
        with _lines(what, total) as note:
            yield note
        return
    parts = [SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()]
    times = [TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn()]
    with Progress(*parts, *times, console=_console(), transient=total is None) as bar:
        task = bar.add_task(what, total=total)
        yield lambda rows: bar.advance(task, rows)


def is_terminal() -> bool:
    """Whether stderr is a terminal, in which bars can move."""
    return _console().is_terminal


@contextlib.contextmanager
def _lines(what: str, total: int | None) -> Iterator[Note]:
    """Print a line every INTERVAL seconds from a thread of its own, and one at the end."""
    began, over, done = time.monotonic(), threading.Event(), [0]

    def report() -> None:
        while not over.wait(INTERVAL):
            say(progress_line(what, done[0], total, time.monotonic() - began))

    def note(rows: int) -> None:
        done[0] += rows

    thread = threading.Thread(target=report, daemon=True)
    thread.start()
    try:
        yield note
        if (seconds := time.monotonic() - began) >= INTERVAL:
            say(f"{what}: {done[0]:,} done in {_duration(seconds)}")
    finally:
        over.set()
        thread.join()


def progress_line(what: str, done: int, total: int | None, seconds: float) -> str:
    """Phase, share, rate and time left, such as `sweep: 1,200 of 4,800 (25 %), 20/s, 3 min left`.

    Without a total, what is done and the time so far.
    """
    rate = done / seconds if seconds > 0 else 0.0
    if total is None:
        counted = f"{done:,} done, {_rate(rate)}, " if done else ""
        return f"{what}: {counted}{_duration(seconds)} so far"
    share = f"{what}: {done:,} of {total:,} ({100 * done / total:.0f} %)"
    if not 0 < done < total:
        return f"{share}, {_duration(seconds)} so far"
    return f"{share}, {_rate(rate)}, {_duration((total - done) / rate)} left"


def _rate(rate: float) -> str:
    if rate >= 10:
        return f"{rate:,.0f}/s"
    return f"{rate:.2g}/s" if rate >= 1 else f"{rate * 60:.2g}/min"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _console() -> Console:
    """stderr, in notebooks too: rich's widgets need ipywidgets, which is often missing."""
    return Console(stderr=True, highlight=False, force_jupyter=False)
