r"""Which dollars of a text delimit mathematics.

Two dollars are a pair by Pandoc's rule: the first has no space after it, the second no space before
and no digit after it, and both are in one paragraph. Models also write `$ x $`, with spaces on both
sides, and `$x $`; those are pairs if something like a formula is between them. A price with three
words behind it is not a formula, although a dollar follows them. Any other dollar is a price, a
term of a sum of money (`$5n + $20`), a variable (`$HOME`, `${n}`; `$x` or `$$x` if its paragraph
has several, or the text names PHP or a shell), the end of a regular expression or a stray, unless
there is a formula beside it: `$2^n` lacks its second dollar.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import NamedTuple

_MARKS = re.compile(r"\\.|(?P<dollars>\$\$?)|(?P<blank>\n[ \t\r]*\n)", re.DOTALL)
_TEX = re.compile(r"\\[a-zA-Z]{2,}|(?<=[\w)}\]|])['’]{0,3}\^|(?:\b\w|[)}\]])[ ]\^|_\{|\\[{}]")
"""What only formulas have."""
_GREEK = re.compile(r"[Α-Ωα-ωϕϑϵ∂∑∏∫√∞]")
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
_SYMBOL = re.compile(
    r"\b(?:[a-zA-Z]|sin|cos|tan|log|ln|exp)\([\w ,+*/-]+\)\Z|(?<![\w'’.])[b-zB-HJ-Z]\Z"
)
"""A function of something, or a letter, right before a dollar."""
_NAME = re.compile(r"[a-zA-Z_]")
"""Begins the name of a variable, if its paragraph has several such dollars without partners."""
_SCRIPTS = re.compile(r"\b(?:PHP|Perl|AWK|PowerShell|[Ss]hell|[Bb]ash)\b")
"""Languages in which one such dollar is a variable."""
_VARIABLE = re.compile(r"[a-zA-Z_]{2,}(?!\w)")
_PROSE = re.compile(r"[ ][a-z]{2,}[,;:]?[ ][a-z]{2,}")
_NAME_IN_BRACES = re.compile(r"\{[a-zA-Z_]\w*\}")
_TERM = re.compile(r"[ ]*\.?[0-9][^\n\\]*[-+*/×÷=<>≤≥][ ]*")
"""What stands between the dollars of two amounts of money: `5n + ` in `$5n + $20`."""
_PATTERN = re.compile(r"""[/"'`(]*\^(?![\d{]|\\[a-zA-Z]{2})""")
"""The beginning of a regular expression: a `^` without a base."""
_BEFORE_VARIABLE = tuple("\"'=:/([{,")
_ENDS_WORD = re.compile(r"(?:[^\W\d_]{2}[.,;!?]?|[0-9]\s*)\Z")
"""The end of a word or number, right behind which a dollar at the end opens no formula."""
_AMOUNT = re.compile(r"[0-9][0-9,.]*(?>[ ][^\W\d_]{2}(?>.*?[ ][^\W\d_]{2}){2})", re.DOTALL)
"""A price, and three words of the sentence that it is in."""
_ENDS_WORDS = re.compile(r"[\w)\]}.!?*]\Z")


class Dollars(NamedTuple):
    """Positions of dollars in a text."""

    literal: set[int]
    """They delimit nothing."""
    unopened: set[int]
    """They end a formula that no dollar begins, as in `x^2$`."""


def read_dollars(text: str) -> Dollars:
    """Which dollars do not begin a formula. Linear in the length of the text."""
    return _DollarSearch(text).run()


class _DollarSearch:
    """Goes through the dollars and blank lines of a text."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.last = len(text.rstrip())
        self.marks = [m for m in _MARKS.finditer(text) if m["dollars"] or m["blank"]]
        displays = [i for i, mark in enumerate(self.marks) if mark["dollars"] == "$$"]
        self.closing = dict(pairwise(displays))
        self.literal = set[int]()
        self.unopened = set[int]()
        self.names = set[int]()
        """Dollars before names in this paragraph, without partners."""
        self.scripts = _SCRIPTS.search(text) is not None
        self.end = -1
        """Of the last dollars; before a paragraph, one character less."""
        self.mathematics = False

    def run(self) -> Dollars:
        """Read every mark, or two that are a pair."""
        at = 0
        while at < len(self.marks):
            dollars = self.marks[at]["dollars"]
            if dollars:
                at = self._double(at) if dollars == "$$" else self._single(at)
            else:
                self._paragraph()
            self.end = self.marks[at].end() - (dollars is None)
            at += 1
        self._paragraph()
        return Dollars(self.literal, self.unopened)

    def _until(self, at: int) -> int:
        """Where the next mark begins."""
        return self.marks[at + 1].start() if at + 1 < len(self.marks) else len(self.text)

    def _stands_before(self, at: int, what: re.Pattern[str]) -> bool:
        """Whether this follows dollars, and no TeX does."""
        stop = self.marks[at].end()
        tex = _TEX.search(self.text, stop, self._until(at))
        return tex is None and what.match(self.text, stop) is not None

    def _paragraph(self) -> None:
        """The end of a paragraph."""
        self.literal |= self.names if len(self.names) > 1 else set()
        self.names = set()

    def _double(self, at: int) -> int:
        """The mark that ends what these dollars begin, or themselves."""
        other, is_name = self.closing.get(at), self._stands_before(at, _NAME)
        if other is None and (is_name or self._stands_before(at, _PROSE)):
            self.names.add(self.marks[at].start())
        elif other is None:
            self.mathematics = True
        elif is_name and _are_names(self.text, self.marks[at], self.marks[other]):
            self.names |= {self.marks[at].start(), self.marks[other].start()}
        else:
            self.mathematics = True
            return other
        return at

    def _single(self, at: int) -> int:
        """The mark that ends what this dollar begins, or itself."""
        after = self.marks[at + 1] if at + 1 < len(self.marks) else None
        if after and after["dollars"] and _is_pair(self.text, self.marks[at], after):
            self.mathematics = True  # `$x$$y$`: a double dollar ends one and begins the next
            return at + (after["dollars"] == "$")
        self._alone(at)
        return at

    def _is_one_more(self, stop: int) -> bool:
        """Whether a dollar ends a text in which all are literal: `… or $10, or $`."""
        return stop >= self.last and bool(self.literal) and not self.mathematics

    def _alone(self, at: int) -> None:
        """A single dollar without a partner."""
        (start, stop), until = self.marks[at].span(), self._until(at)
        within = self.text[stop:until]
        before = self.text[max(self.end, 0) : start] if start > self.end else None
        next_two = self.marks[at + 1 : at + 3]
        if self.scripts and _VARIABLE.match(within):  # whatever follows, as the path \Users\Name
            self.literal.add(start)
        elif _TERM.fullmatch(within) and _is_amount(self.text, next_two):
            self.literal |= {start, until}
        elif not self._is_one_more(stop) and _has_formula(before, within, until == len(self.text)):
            if before and _ends_formula(before) and not _begins_formula(within):
                self.unopened.add(start)
        else:
            self.literal.add(start)
        if self._stands_before(at, _NAME):
            self.names.add(start)
            self.literal |= {start} if self.scripts else set()


def _are_names(text: str, first: re.Match[str], second: re.Match[str]) -> bool:
    """Whether two double dollars, the first before a name, are as in `$$x and $$y`."""
    within = text[first.end() : second.start()]
    shaped = within[-1].isspace() and _NAME.match(text, second.end()) is not None
    return shaped and "=" not in within and not _is_formula(within)


def _is_pair(text: str, first: re.Match[str], second: re.Match[str]) -> bool:
    within, after = text[first.end() : second.start()], text[second.end() : second.end() + 1]
    if not within.strip():
        return False
    if after == "{" and _NAME_IN_BRACES.match(within):  # ${a}${b}
        return False
    formula = _is_formula(within)
    spaces = within[0].isspace() + within[-1].isspace()
    if second["dollars"] == "$$":
        return formula or not spaces
    if spaces == 0:
        name = after.isalpha() or after in ("_", "{", "(")
        words = not name and not _AMOUNT.match(within) and _ENDS_WORDS.search(within) is not None
        return not after.isdigit() and (formula or words)
    if re.match(r"\w|\s*[0-9]", text[second.end() : second.end() + 40]):
        return False
    if spaces == 1 and _PRICE.match(within):
        return False
    return formula or (spaces == 2 and "=" in within)


def _is_amount(text: str, marks: list[re.Match[str]]) -> bool:
    """Whether the first mark is a dollar before a number that the next mark does not pair with."""
    if not marks or marks[0]["dollars"] != "$":
        return False
    number = text[marks[0].end() : marks[0].end() + 1].isdigit()
    return number and not (len(marks) > 1 and marks[1]["dollars"] and _is_pair(text, *marks))


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
    if _PATTERN.match(last, last.rfind(" ") + 1):
        return False
    line, newline, _ = after.partition("\n")
    at_end = at_end and not newline
    if _TEX.search(line) or _GREEK.match(line) or (at_end and line.endswith("\\")):
        return True
    if _PRICE.match(line) or _NAME_IN_BRACES.match(line):
        return False
    if before is None:
        return True
    if line[:1].isalpha() or line[:1] == "_":
        return _LETTER.match(line) is not None and not last.endswith(_BEFORE_VARIABLE)
    if _TEX.search(last) or _SYMBOL.search(last) or line[:1].isdigit():  # x^2$, f(x)$, x$, $2x
        return True
    if not line.strip():
        return at_end and not _ENDS_WORD.search(last)
    return _is_formula(line)


def _ends_formula(before: str) -> bool:
    last = before.rpartition("\n")[2]
    return not last[-1:].isspace() and bool(_TEX.search(last) or _SYMBOL.search(last))


def _begins_formula(after: str) -> bool:
    line = after.partition("\n")[0]
    return bool(re.match(r"[\w\\]", line) or _TEX.search(line)) or _is_formula(line)
