"""Code validity: fenced python blocks in a completion, and whether they parse."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Validity = Literal["absent", "valid", "invalid", "truncated"]

PYTHON = ("python", "py", "python3", "py3")
"""Fence languages that count as Python, in any case."""

_OPEN = re.compile(
    r"(?P<indent>[ \t]*(?:(?:[-*+]|\d{1,9}[.)])[ \t]+)?)(?P<mark>`{3,}|~{3,})"
    r"(?P<info>\s*\{?\.?(?P<language>[\w+#-]*).*)"
)
_CLOSE = re.compile(r"(?P<indent>[ \t]*)(?P<mark>`{3,}|~{3,})[ \t]*\r?")


def code_validity(text: str, truncated: bool = False) -> Validity:
    """`absent` (no Python fence), `valid`, `invalid` or `truncated`, of the completion alone.

    `valid`: at least one closed ```` ```python ```` or ```` ```py ```` fence, and all of them
    parse by the running interpreter's grammar. `truncated`: `truncated` says the token limit cut
    the text, and it ends inside a Python fence (or an opening line that may become one). An open
    fence at the end of a finished text is `invalid`. Fences of other languages, or of none, are
    ignored.
    """
    found = list(fences(text))
    if truncated and found and _cut_inside_python(found[-1]):
        return "truncated"
    python = [fence for fence in found if fence.language in PYTHON]
    if not python:
        return "absent"
    return "valid" if all(f.closed and parses(f.body) for f in python) else "invalid"


def parses(source: str) -> bool:
    """Whether Python can parse the source, however hostile. None of it is run."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            ast.parse(source)
        except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
            return False
    return True


def _cut_inside_python(fence: Fence) -> bool:
    if fence.closed:
        return False
    if fence.cut_short:
        return any(name.startswith(fence.language) for name in PYTHON)
    return fence.language in PYTHON


@dataclass(frozen=True)
class Fence:
    """One fenced block: its lines, without the indentation of its opening mark."""

    language: str
    """First word after the mark, in lower case: `python` for ```` ```{.python} ````, too."""
    body: str
    first: int
    """Index of the opening line."""
    last: int
    """Index of the closing line; for an open block, of the text's last line."""
    closed: bool
    cut_short: bool
    """The text ends within the opening line, so the language may be cut off."""


def fences(text: str) -> Iterator[Fence]:
    """The fenced blocks of a text in order, by CommonMark's rules for ``` and ~~~.

    A block is closed by a line with nothing but at least as many of the same marks. More lenient
    than CommonMark: any indentation and a list mark may come before the opening, because models
    put blocks into lists. Linear in the length of the text.
    """
    lines = text.split("\n")
    at = 0
    while at < len(lines):
        if opening := _opening(lines[at]):
            fence = _fence(lines, at, opening)
            yield fence
            at = fence.last
        at += 1


def without_fences(text: str) -> str:
    """The text with each fenced block, closed or not, replaced by an empty line."""
    lines = text.split("\n")
    kept, at = [], 0
    for fence in fences(text):
        kept += [*lines[at : fence.first], ""]
        at = fence.last + 1
    return "\n".join(kept + lines[at:])


def _opening(line: str) -> re.Match[str] | None:
    """The match of an opening line; ```x``` on one line is inline code and opens nothing."""
    match = _OPEN.match(line)
    inline = match and match["mark"][0] == "`" and "`" in match["info"]
    return None if inline else match


def _fence(lines: list[str], first: int, opening: re.Match[str]) -> Fence:
    indent, mark = len(opening["indent"]), opening["mark"]
    last = first + 1
    while last < len(lines) and not _closes(lines[last], mark, indent):
        last += 1
    closed = last < len(lines)
    return Fence(
        language=opening["language"].lower(),
        body="\n".join(_dedented(line, indent) for line in lines[first + 1 : last]),
        first=first,
        last=last if closed else len(lines) - 1,
        closed=closed,
        cut_short=first == len(lines) - 1,
    )


def _closes(line: str, mark: str, indent: int) -> bool:
    """As many marks or more, alone on the line, at most 3 columns deeper than the opening."""
    match = _CLOSE.fullmatch(line)
    return (
        match is not None and match["mark"].startswith(mark) and len(match["indent"]) <= indent + 3
    )


def _dedented(line: str, indent: int) -> str:
    return line[min(indent, len(line) - len(line.lstrip(" \t"))) :]
