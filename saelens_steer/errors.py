"""The exception for bad input, helpers to word its messages, and the check that a file is there."""

from __future__ import annotations

import contextlib
import difflib
import errno
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

REPORT_IT = "Please report it with"
"""How the note begins that names the traceback's file."""
MOST_MISTAKES = 50
"""Mistakes that one error lists."""


class InputError(ValueError):
    """The user's input is wrong; the message says in one sentence what to change.

    The command line prints it without a traceback and exits with status 2.
    """


MOST_NAMES = 30
"""Known names that a message lists."""


def or_known(name: str, known: Iterable[str]) -> str:
    """`did you mean 'x'?`, or the known names if none is close (sorted unless given as a list)."""
    names = known if isinstance(known, list) else sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names[:MOST_NAMES])}{more}"


def one_line(error: BaseException) -> str:
    """An error's message on one line of at most 200 characters, or its class name if empty."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def shortened(value: object) -> str:
    """A value as Python writes it, cut after 80 characters."""
    shown = repr(value)
    return shown if len(shown) <= 80 else f"{shown[:79]}…"


def one_string(name: str, given: str) -> InputError:
    """The error for one string as `name`, a list of strings: it would be read as characters."""
    cut = repr(given if len(given) <= 40 else f"{given[:40]}…")
    return InputError(f"{name} is a string: write {name}=[{cut}], a list of strings")


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its class name if it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def all_mistakes(source: str, sentences: Sequence[str]) -> InputError:
    """One error for every mistake in `source`, a config or a call; several get a line each."""
    if len(sentences) == 1:
        return InputError(f"{source}: {sentences[0]}")
    lines = [f"\n- {sentence}" for sentence in sentences[:MOST_MISTAKES]]
    if more := len(sentences) - len(lines):
        lines.append(f"\n- and {more} more")
    return InputError(f"{source} has {len(sentences)} mistakes:{''.join(lines)}")


def is_there(name: str | Path) -> bool:
    """Whether a file or folder has this name; False for text that cannot be a path."""
    with contextlib.suppress(OSError, ValueError, RuntimeError):
        return Path(name).expanduser().exists()
    return False


def existing(path: Path) -> Path:
    """Return the path of a file. Raises InputError, with the nearest name, if there is none."""
    if is_there(path):
        if path.is_dir():
            raise InputError(f"{path} is a folder: give a file")
        if not path.is_file():  # a pipe would be waited for
            raise InputError(f"{path} is not a regular file: give a regular file")
        return path
    beside = [one.name for one in path.parent.glob("*")] if is_there(path.parent) else []
    near = difflib.get_close_matches(path.name, beside, n=1, cutoff=0.8)
    hint = f"; did you mean {path.with_name(near[0])}?" if near else ""
    raise InputError(f"there is no file {path}{hint}")


def why_not_written(error: BaseException, path: Path, temporary: Path) -> str | None:
    """A sentence if the system could not write `temporary`, and so `path`; None for other errors.

    Libraries such as safetensors name the system's error in a message of their own.
    """
    if isinstance(error, OSError):
        number, about = error.errno, error.filename
    else:
        named = re.search(r"\(os error (\d+)\)", str(error))
        number, about = int(named[1]) if named else None, None
    if number in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full: free some space for {path}"
    if about is None:
        is_ours = not isinstance(error, ConnectionError | TimeoutError)
    else:
        is_ours = str(temporary) in str(about) or str(about) in (str(path), str(path.parent))
    return f"cannot write {path}: {os.strerror(number)}" if number and is_ours else None
