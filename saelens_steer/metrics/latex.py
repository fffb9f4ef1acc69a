r"""Is the LaTeX of a completion balanced, and does the completion begin with it?

Mathematics is delimited by `$`, `$$`, `\( \)`, `\[ \]` or an environment. Not every dollar is a
delimiter: see `dollars`.
"""

from __future__ import annotations

import re

from saelens_steer.metrics.code import Validity, without_fences
from saelens_steer.metrics.dollars import read_dollars
from saelens_steer.metrics.text import answer_of

_MARKS = re.compile(
    r"""\\(?P<env>begin|end)(?![a-zA-Z])[ \t]*(?:\{(?P<name>[^{}$\\\n]*)(?P<named>\})?)?
      | \\(?P<command>[a-zA-Z]+)\*?
      | \\(?P<escaped>.)
      | (?P<dollars>\$+)
      | (?P<brace>[{}])
      | (?P<cell>&)
      | (?P<comment>%)
      | (?P<blank>\n[ \t\r]*\n)
      | (?P<newline>\n)""",
    re.VERBOSE | re.DOTALL,
)
_BRACKETS = {"(": ")", "[": "]"}
_TEXT_COMMANDS = frozenset({
    "text", "mbox", "hbox", "fbox", "textrm", "textbf", "textit", "texttt", "textsf", "textnormal",
    "textup", "textmd", "textsl", "textsc", "emph", "intertext", "shortintertext", "tag",
})  # fmt: skip
"""Their argument is text, so `$` in it opens mathematics again."""
_MATH_ENVIRONMENTS = frozenset({
    "equation", "align", "alignat", "flalign", "gather", "multline", "eqnarray", "displaymath",
    "math", "split", "aligned", "alignedat", "gathered", "cases", "array", "matrix", "pmatrix",
    "bmatrix", "Bmatrix", "vmatrix", "Vmatrix", "smallmatrix", "subequations", "dcases",
})  # fmt: skip
_DELIMITER = re.compile(r"\s*(\$|\\\(|\\\[)")
_TICKS = re.compile(r"`+")


def latex_validity(text: str, truncated: bool = False) -> Validity:
    r"""`absent`, `valid`, `invalid` or `truncated`, of the completion alone.

    Thoughts (`<think> … </think>`) and code (fenced blocks, closed or not, and `inline code`) are
    taken out first. `valid`: delimiters, environments, and the braces, `\left` and `\right` within
    them are balanced. `truncated`: `truncated` says the token limit cut the text, and it ends
    inside mathematics with nothing wrong before. A formula that a blank line parts is `invalid`, as
    in TeX. Commands without delimiters (`\frac` in plain prose) are `absent`. Linear in the length
    of the text.
    """
    reader = _Reader(_without_inline_code(without_fences(answer_of(text))))
    finished = reader.read()
    if not reader.present:
        return "absent"
    if truncated and finished and reader.open:
        return "truncated"
    return "valid" if finished and not reader.open else "invalid"


def latex_first(text: str) -> bool:
    r"""Whether the completion, after white space, begins with `$`, `$$`, `\(` or `\[`.

    Thoughts are left out. The dollar of a price such as `$5` is not a delimiter.
    """
    text = answer_of(text)
    match = _DELIMITER.match(text)
    if match is None:
        return False
    return match[1] != "$" or match.start(1) not in read_dollars(text).literal


class _Reader:
    """Reads marks one by one, with a stack of what is open."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.known = read_dollars(text)
        self.open: list[tuple[str, bool]] = []
        """(what closes it, whether mathematics is inside), innermost last."""
        self.maths = 0
        """How many of them have mathematics inside."""
        self.present = False
        self.comment = False
        """After `%` in mathematics, to the end of the line or of the formula."""
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
        if self.comment and not (mark["dollars"] or mark["escaped"] or mark["blank"]):
            self.comment = not mark["newline"]
            return True
        self.comment = bool(mark["comment"] and self.maths)
        if mark["env"]:
            return self._environment(mark)
        if mark["dollars"]:
            return self._dollars(mark)
        if mark["brace"]:
            return self._brace(mark["brace"])
        if mark["escaped"]:
            return self._bracket(mark["escaped"])
        if mark["command"] in ("left", "right") and self._in_math:
            return self._push("right", True) if mark["command"] == "left" else self._pop("right")
        if mark["cell"]:
            return not (self.open and self.open[-1][0] == "right")
        return not (mark["blank"] and self.maths)

    @property
    def _in_math(self) -> bool:
        return bool(self.open) and self.open[-1][1]

    def _push(self, closer: str, math: bool) -> bool:
        self.present = True
        self.maths += math
        self.open.append((closer, math))
        return True

    def _pop(self, closer: str) -> bool:
        self.present = True
        fits = bool(self.open) and self.open[-1][0] == closer
        if fits:
            self.maths -= self.open.pop()[1]
        return fits

    def _dollars(self, mark: re.Match[str]) -> bool:
        """A run of dollars, as TeX reads it: `$x$$y$` ends one formula and begins the next."""
        left = len(mark["dollars"])
        while left:
            inside = self.open[-1][0] if self._in_math else ""
            single, start = left == 1 or inside == "$", mark.end() - left
            left -= 1 if single else 2
            if inside == "$$" and single:  # half a delimiter: only if the text is cut
                return mark.end() == len(self.text)
            if inside:
                if not self._pop("$" if single else "$$"):
                    return False
            elif start in self.known.unopened:
                self.present = True
                return False
            elif start not in self.known.literal:
                self._push("$" if single else "$$", True)
        return True

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
