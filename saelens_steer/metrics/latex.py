r"""Is the LaTeX of a completion balanced, and does the completion begin with it?

Mathematics is delimited by `$`, `$$`, `\( \)`, `\[ \]` or an environment. Not every dollar is a
delimiter: `\$` is a character and `$5` may be a price. A `$` before a digit, with or without spaces
between them, is a price if nothing mathematical follows the number (as in `$2^n` or `$2x`) and the
next dollar in its paragraph cannot close it. A closing dollar, as in Pandoc, has no space before it
and no digit after it. `$ 5 $`, with a space at both ends, is not a price.
"""

from __future__ import annotations

import re
from itertools import zip_longest

from saelens_steer.metrics.code import Validity, without_fences

_MARKS = re.compile(
    r"""\\(?P<env>begin|end)(?![a-zA-Z])[ \t]*(?:\{(?P<name>[^{}\n]*)(?P<named>\})?)?
      | \\(?P<command>[a-zA-Z]+)\*?
      | \\(?P<escaped>.)
      | (?P<dollars>\$\$?)
      | (?P<brace>[{}])
      | (?P<blank>\n[ \t\r]*\n)""",
    re.VERBOSE | re.DOTALL,
)
_BRACKETS = {"(": ")", "[": "]"}
_TEXT_COMMANDS = frozenset({
    "text", "mbox", "hbox", "textrm", "textbf", "textit", "texttt", "textsf", "textnormal",
    "intertext", "tag",
})  # fmt: skip
"""Their argument is text, so `$` in it opens mathematics again."""
_MATH_ENVIRONMENTS = frozenset({
    "equation", "align", "alignat", "flalign", "gather", "multline", "eqnarray", "displaymath",
    "math", "split", "aligned", "alignedat", "gathered", "cases", "array", "matrix", "pmatrix",
    "bmatrix", "Bmatrix", "vmatrix", "Vmatrix", "smallmatrix", "subequations", "dcases",
})  # fmt: skip
_DELIMITER = re.compile(r"\s*(\$|\\\(|\\\[)")
_PRICE = re.compile(
    r"""[ ]*\.?[0-9][0-9,.]*+
        (?! \s*\\[a-zA-Z]                            # $2 \cdot 3
          | [\^_]                                    # $2^n
          | (?![kKmMbBtT]) [a-zA-Z] (?![a-zA-Z]) )   # $2x, but not $2k or $2bn""",
    re.VERBOSE,
)
"""A number with nothing mathematical after it."""
_CLOSES_SPACED = re.compile(r"(?![\w\\]|\s*[0-9])")
_TICKS = re.compile(r"`+")


def latex_validity(text: str, truncated: bool = False) -> Validity:
    r"""`absent`, `valid`, `invalid` or `truncated`, of the completion alone.

    Code (fenced blocks, closed or not, and `inline code`) is taken out first. `valid`: delimiters,
    environments and the braces within them are balanced. `truncated`: `truncated` says the token
    limit cut the text, and it ends inside mathematics with nothing wrong before. A `$` still open
    at a blank line is `invalid`, as in TeX. Commands without delimiters (`\frac` in plain prose)
    are `absent`. Linear in the length of the text.
    """
    reader = _Reader(_without_inline_code(without_fences(text)))
    finished = reader.read()
    if not reader.present:
        return "absent"
    if truncated and finished and reader.open:
        return "truncated"
    return "valid" if finished and not reader.open else "invalid"


def latex_first(text: str) -> bool:
    r"""Whether the completion, after white space, begins with `$`, `$$`, `\(` or `\[`.

    The dollar of a price such as `$5` is not a delimiter.
    """
    match = _DELIMITER.match(text)
    if match is None:
        return False
    return match[1] != "$" or match.start(1) not in prices(text)


def prices(text: str) -> set[int]:
    """The positions of dollars that begin a price."""
    found = set()
    marks = [m for m in _MARKS.finditer(text) if m["dollars"] or m["blank"]]
    for mark, after in zip_longest(marks, marks[1:]):
        if mark["dollars"] == "$" and _PRICE.match(text, mark.end()):
            spaced = text[mark.end()] == " "
            if after is None or after["blank"] or not _can_close(text, after, spaced):
                found.add(mark.start())
    return found


def _can_close(text: str, mark: re.Match[str], spaced: bool) -> bool:
    """Whether a dollar can close mathematics that began with a digit, or a space and a digit."""
    if text[mark.start() - 1].isspace():
        return spaced and _CLOSES_SPACED.match(text, mark.end()) is not None
    return mark["dollars"] == "$$" or not text[mark.end() : mark.end() + 1].isdigit()


class _Reader:
    """Reads marks one by one, with a stack of what is open."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.prices = prices(text)
        self.open: list[tuple[str, bool]] = []
        """(what closes it, whether mathematics is inside), innermost last."""
        self.present = False
        self.argument_is_text = False
        """The previous mark was a command such as `\\text`."""

    def read(self) -> bool:
        """Read to the end or to the first mark out of place; False in the second case."""
        for mark in _MARKS.finditer(self.text):
            if not self._take(mark):
                return False
            self.argument_is_text = mark["command"] in _TEXT_COMMANDS
        return True

    def _take(self, mark: re.Match[str]) -> bool:
        if mark["env"]:
            return self._environment(mark)
        if mark["dollars"]:
            return self._dollars(mark)
        if mark["brace"]:
            return self._brace(mark["brace"])
        if mark["escaped"]:
            return self._bracket(mark["escaped"])
        inline = self.open and self.open[-1][0] in ("$", ")")
        return not (mark["blank"] and inline)

    @property
    def _in_math(self) -> bool:
        return bool(self.open) and self.open[-1][1]

    def _push(self, closer: str, math: bool) -> bool:
        self.present = True
        self.open.append((closer, math))
        return True

    def _pop(self, closer: str) -> bool:
        self.present = True
        fits = bool(self.open) and self.open[-1][0] == closer
        if fits:
            self.open.pop()
        return fits

    def _dollars(self, mark: re.Match[str]) -> bool:
        run = mark["dollars"]
        if not self._in_math:
            return mark.start() in self.prices or self._push(run, True)
        inside = self.open[-1][0]
        if (inside, run) == ("$", "$$"):  # $a$$b$: one ends and the next begins
            return True
        if (inside, run) == ("$$", "$"):  # half a delimiter: only if the text is cut
            return mark.end() == len(self.text)
        return self._pop(run)

    def _bracket(self, char: str) -> bool:
        if char in _BRACKETS:
            return not self._in_math and self._push(_BRACKETS[char], True)
        return self._pop(char) if char in _BRACKETS.values() else True

    def _brace(self, char: str) -> bool:
        if not self.open:  # braces in prose
            return True
        if char == "}":
            return self._pop("}")
        return self._push("}", self._in_math and not self.argument_is_text)

    def _environment(self, mark: re.Match[str]) -> bool:
        name = (mark["name"] or "").strip()
        if mark["env"] == "end":
            if mark["named"]:
                return self._pop(f"end {name}")
            self.present = True
        else:
            self._push(f"end {name}", self._in_math or name.rstrip("*") in _MATH_ENVIRONMENTS)
        cut = mark.end() == len(self.text)
        return bool(mark["named"]) or (cut and bool(self.open))


def _without_inline_code(text: str) -> str:
    """Each `span`, between two equal runs of backticks on one line, becomes a space."""
    return "\n".join(_spans_out(line) if "`" in line else line for line in text.split("\n"))


def _spans_out(line: str) -> str:
    runs = list(_TICKS.finditer(line))
    partner: dict[int, int] = {}
    latest: dict[int, int] = {}
    for i in reversed(range(len(runs))):
        length = len(runs[i][0])
        if length in latest:
            partner[i] = latest[length]
        latest[length] = i
    kept, at, i = [], 0, 0
    while i < len(runs):
        if i in partner:
            kept += [line[at : runs[i].start()], " "]
            i = partner[i]
            at = runs[i].end()
        i += 1
    return "".join([*kept, line[at:]])
