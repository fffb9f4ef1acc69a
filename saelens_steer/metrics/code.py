"""Code validity: fenced python blocks in a completion, and whether they parse."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from saelens_steer.metrics.text import answer_of

Validity = Literal["absent", "valid", "invalid", "truncated"]

SESSIONS = ("pycon", "python-repl", "python-console")
"""Languages of interactive sessions, whose code follows `>>>` and `...`."""
PYTHON = ("python", "py", "python3", "py3", "ipython", "ipython3", *SESSIONS)
"""Fence languages that count as Python, in any case."""

_OPEN = re.compile(
    r"(?P<before>(?:[ \t]*(?:>|(?:[-*+]|\d{1,9}[.)])(?=[ \t])))*+[ \t]*)"
    r"(?P<mark>`{3,}|~{3,})(?P<info>.*)"
)
_CLOSE = re.compile(r"(?P<indent>[ \t]*)(?P<mark>`{3,}|~{3,})[ \t]*\r?")
_QUOTE = re.compile(r"[ \t]*> ?")
_PROMPT = re.compile(r"[ \t]*(?:>>>|\.\.\.)(?: |$)")
_TAB = 4
"""Columns between tab stops, as in CommonMark."""


def code_validity(text: str, truncated: bool = False) -> Validity:
    """`absent` (no Python fence), `valid`, `invalid` or `truncated`, of the completion alone.

    Thoughts (`<think> … </think>`) are left out. `valid`: at least one closed ```` ```python ````
    or ```` ```py ```` fence, and all of them parse by the running interpreter's grammar, as an
    empty one does; the rest of the opening line is not code. `truncated`: `truncated` says the
    token limit cut the text, and it ends inside a Python fence (or an opening line that may become
    one). An open fence at the end of a finished text is `invalid`. Fences of other languages, or
    of none, are ignored.
    """
    found = list(fences(answer_of(text)))
    if truncated and found and _cut_inside_python(found[-1]):
        return "truncated"
    python = [fence for fence in found if fence.language in PYTHON]
    if not python:
        return "absent"
    return "valid" if all(f.closed and f.parses() for f in python) else "invalid"


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
    if fence.closed or not fence.at_end:
        return False
    if fence.cut_short:
        return any(name.startswith(fence.language) for name in PYTHON)
    return fence.language in PYTHON


@dataclass(frozen=True)
class Fence:
    """One fenced block."""

    language: str
    """First word after the mark, in lower case; the first class of ```` ```{#id .python} ````."""
    lines: list[str]
    """The lines between the marks, without the marks of block quotes."""
    indent: int
    """Columns before the opening mark."""
    first: int
    """Index of the opening line."""
    last: int
    """Index of the closing line; for an open block, of its last line."""
    closed: bool
    at_end: bool
    """The block reaches the end of the text."""
    cut_short: bool
    """The text ends within the language."""

    def parses(self) -> bool:
        """Whether Python can parse the block.

        In a list, code is indented like its opening mark, or stands at the margin. CommonMark takes
        from each line what it has of that indentation.
        """
        lines, prompts = self.lines, [_PROMPT.match(line) for line in self.lines]
        if self.language in SESSIONS and any(prompts):  # what is not after a prompt is output
            pairs = zip(lines, prompts, strict=True)
            return parses("\n".join(line[found.end() :] for line, found in pairs if found))
        common = min([self.indent, *(_columns(line) for line in lines if line.strip())])
        return any(
            parses("\n".join(_unindented(line, columns) for line in lines))
            for columns in sorted({common, self.indent})
        )


def fences(text: str) -> Iterator[Fence]:
    """The fenced blocks of a text in order, by CommonMark's rules for ``` and ~~~.

    A block is closed by a line with nothing but at least as many of the same marks, and ends with
    the block quote that it is in. More lenient than CommonMark: the opening may be indented by any
    amount, and code at the margin does not end a list item. Linear in the length of the text.
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
    """The text with a blank line instead of each fenced block, closed or not."""
    lines = text.split("\n")
    kept, at = [], 0
    for fence in fences(text):
        kept += [*lines[at : fence.first], "", ""]
        at = fence.last + 1
    return "\n".join(kept + lines[at:])


def _opening(line: str) -> re.Match[str] | None:
    """The match of an opening line; ```x``` on one line is inline code and opens nothing."""
    match = _OPEN.match(line)
    inline = match and match["mark"][0] == "`" and "`" in match["info"]
    return None if inline else match


def _fence(lines: list[str], first: int, opening: re.Match[str]) -> Fence:
    quotes, own = opening["before"].count(">"), opening["before"].rpartition(">")[2]
    indent = _columns(re.sub(r"\S", " ", own.removeprefix(" ") if quotes else own))
    language, open_ended = _language(opening["info"])
    body, last, closed = [], first, False
    for number in range(first + 1, len(lines)):  # a slice would copy the rest for every fence
        line = lines[number]
        start = _after_quotes(line, quotes)
        if start is None:
            break
        last = number
        if closed := _closes(line[start:], opening["mark"], indent):
            break
        body.append(line[start:])
    at_end = last == len(lines) - 1
    cut_short = at_end and last == first and open_ended
    return Fence(language, body, indent, first, last, closed, at_end, cut_short)


def _language(info: str) -> tuple[str, bool]:
    """The language of an info string in lower case, and whether the string ends with it."""
    words = info.strip().lstrip("{").split()
    attributes = info.lstrip().startswith("{")
    classes = [word for word in words if attributes and word.startswith(".")]
    word = (classes or words or [""])[0].removeprefix(".")
    name = re.match(r"[\w+#-]*", word)[0]  # pyright: ignore[reportOptionalSubscript]
    return name.lower(), word == name and info.endswith(name)


def _after_quotes(line: str, quotes: int) -> int | None:
    """Where a line begins after the marks of so many block quotes; None if it has fewer."""
    start = 0
    for _ in range(quotes):
        mark = _QUOTE.match(line, start)
        if mark is None:
            return None
        start = mark.end()
    return start


def _closes(line: str, mark: str, indent: int) -> bool:
    """As many marks or more, alone on the line, at most 3 columns deeper than the opening."""
    match = _CLOSE.fullmatch(line)
    return match is not None and match["mark"].startswith(mark) and _columns(line) <= indent + 3


def _columns(line: str) -> int:
    """The width of a line's indentation."""
    return len(line[: len(line) - len(line.lstrip(" \t"))].expandtabs(_TAB))


def _unindented(line: str, columns: int) -> str:
    """The line with up to so many columns of indentation taken off."""
    if columns == 0:
        return line
    return " " * max(0, _columns(line) - columns) + line.lstrip(" \t")
