r"""Which dollars of a text delimit mathematics.

Two dollars are a pair by Pandoc's rule: the first has no space after it, the second no space before
and no digit after it, and both are in one paragraph. Models also write `$ x $`, with spaces on both
sides, and `$x $`; those are pairs if something like a formula is between them. Any other dollar is
a price, a variable of a shell or of PHP, or a stray, unless there is a formula beside it: `$2^n`
lacks its second dollar.
"""

from __future__ import annotations

import re
from itertools import pairwise

_MARKS = re.compile(r"\\.|(?P<dollars>\$\$?)|(?P<blank>\n[ \t\r]*\n)", re.DOTALL)
_TEX = re.compile(r"\\[a-zA-Z]{2,}|\^|_\{|\\[{}]")
"""What only formulas have."""
_WORD = re.compile(
    r"""(?<![^\W_]) (?!(?:sin|cos|tan|log|ln|exp|max|min|lim|mod|gcd|det)\b) [^\W\d_]{2,}""",
    re.VERBOSE,
)
_PRICE = re.compile(
    r"""[ ]*\.?[0-9][0-9,.]*+
        (?! \s*\\[a-zA-Z]                            # $2 \cdot 3
          | [\^_]                                    # $2^n
          | (?![kKmMbBtT]) [a-zA-Z] (?![a-zA-Z]) )   # $2x, but not $2k or $2bn""",
    re.VERBOSE,
)
"""A number with nothing mathematical after it."""
_LETTER = re.compile(r"""[ ]*[a-zA-Z](?![\w"'`;:/)\]}])""")
"""A letter alone, not as in `"$f"` or `$i;`."""
_BEFORE_VARIABLE = tuple("\"'=:/([{,")
_ENDS_WORDS = re.compile(r"[\w)\]}.!?*]\Z")


def literal_dollars(text: str) -> set[int]:
    """Positions of the single dollars that delimit nothing. Linear in the length of the text."""
    marks = [m for m in _MARKS.finditer(text) if m["dollars"] or m["blank"]]
    displays = [i for i, mark in enumerate(marks) if mark["dollars"] == "$$"]
    closing = dict(pairwise(displays))
    found, at, end = set(), 0, 0
    while at < len(marks):
        mark, after = marks[at], marks[at + 1] if at + 1 < len(marks) else None
        if mark["dollars"] == "$$":
            at = closing.get(at, at)
        elif mark["dollars"] and after and after["dollars"] and _is_pair(text, mark, after):
            at += after["dollars"] == "$"  # `$x$$y$`: a double dollar ends one and begins the next
        elif mark["dollars"]:
            start, stop = mark.span()
            until = after.start() if after else len(text)
            before = text[end:start] if at == 0 or start > end else None
            if not _has_formula(before, text[stop:until], until == len(text)):
                found.add(start)
        end = marks[at].end()
        at += 1
    return found


def _is_pair(text: str, first: re.Match[str], second: re.Match[str]) -> bool:
    within, after = text[first.end() : second.start()], text[second.end() : second.end() + 1]
    if not within.strip():
        return False
    formula = _is_formula(within)
    spaces = within[0].isspace() + within[-1].isspace()
    if second["dollars"] == "$$":
        return formula or not spaces
    if spaces == 0:
        name = after.isalpha() or after in ("_", "{", "(")
        return not after.isdigit() and (
            formula or (not name and _ENDS_WORDS.search(within) is not None)
        )
    if re.match(r"\w|\s*[0-9]", text[second.end() : second.end() + 40]):
        return False
    if spaces == 1 and _PRICE.match(within):
        return False
    return formula or (spaces == 2 and "=" in within)


def _is_formula(within: str) -> bool:
    """Whether there is TeX, or letters and numbers and no words."""
    if _TEX.search(within):
        return True
    return any(c.isalnum() or c == "{" for c in within) and not _WORD.search(within)


def _has_formula(before: str | None, after: str, at_end: bool) -> bool:
    """Whether a dollar without a partner has a formula on its line: behind it, or before it.

    `before` is None directly behind another delimiter, as in `$$x$$$`.
    """
    last = (before or "").rpartition("\n")[2]
    line, newline, _ = after.partition("\n")
    at_end = at_end and not newline
    if _TEX.search(line) or (at_end and line.endswith("\\")):
        return True
    if _PRICE.match(line):
        return False
    if before is None:
        return True
    if line[:1].isalpha() or line[:1] == "_":
        return _LETTER.match(line) is not None and not last.endswith(_BEFORE_VARIABLE)
    if _TEX.search(last) or line[:1].isdigit():  # x^2$, $2x
        return True
    if not line.strip():
        return at_end and not last.rstrip()[-1:].isdigit()
    return _is_formula(line)
