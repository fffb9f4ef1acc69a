"""Fenced code blocks in Markdown that a model wrote, perhaps cut off."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_OPEN = re.compile(
    r"(?P<indent>[ \t]*(?:(?:[-*+]|\d{1,9}[.)])[ \t]+)?)(?P<mark>`{3,}|~{3,})(?P<info>.*)"
)
_LANGUAGE = re.compile(r"\s*\{?\.?([\w+#-]*)")
_CLOSE = re.compile(r"(?P<indent>[ \t]*)(?P<mark>`{3,}|~{3,})[ \t]*\r?")


@dataclass(frozen=True)
class Fence:
    """One fenced block: its lines, without the indentation of its opening mark."""

    language: str
    """First word after the mark, in lower case: `python` of ```` ```{.python} ````, too."""
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
        language=_language(opening["info"]),
        body="\n".join(_dedented(line, indent) for line in lines[first + 1 : last]),
        first=first,
        last=last if closed else len(lines) - 1,
        closed=closed,
        cut_short=first == len(lines) - 1,
    )


def _language(info: str) -> str:
    match = _LANGUAGE.match(info)
    return match[1].lower() if match else ""


def _closes(line: str, mark: str, indent: int) -> bool:
    """As many marks or more, alone on the line, at most 3 columns deeper than the opening."""
    match = _CLOSE.fullmatch(line)
    return (
        match is not None and match["mark"].startswith(mark) and len(match["indent"]) <= indent + 3
    )


def _dedented(line: str, indent: int) -> str:
    return line[min(indent, len(line) - len(line.lstrip(" \t"))) :]
