"""The exception for bad input, and helpers to word its messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """The user's input is wrong; the message says in one sentence what to change.

    The command line prints it without a traceback and exits with status 2.
    """


def or_known(name: str, known: Iterable[str]) -> str:
    """`did you mean 'x'?`, or all known names if none is close (sorted unless given as a list)."""
    names = known if isinstance(known, list) else sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"


def one_line(error: BaseException) -> str:
    """An error's message on one line of at most 200 characters, or its class name if empty."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its class name if it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
