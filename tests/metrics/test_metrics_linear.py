"""Validators read a text in time that grows with its length, whatever it holds."""

import time

import pytest

from saelens_steer.metrics.code import code_validity
from saelens_steer.metrics.latex import latex_first, latex_validity
from saelens_steer.metrics.text import distinct_words, mentions

UNITS = [
    "$", "$$", "a$", "$a ", "$5 ", "5$", "{$", "$ ", "US$", "`$", "` ", "a``b`", "{", "}", "\\",
    "\\(", "\\left(", "\\begin{a}", "\\begin ", "\\text{$", "%", "&", "```\n", "~~~\n",
    "```py\nx\n```\n",
    "```{.", "> ", "- ", "1. ", ">>> ", "<think>", "</think>", "<think></think>", "<", "\n", "\n\n",
    " ", "\t", "a ", "(", "'", '"""', "x=", "lambda:", "\0", "é",
]  # fmt: skip
BEFORE = ["$", "```python\n", "\\["]
CASES = [(unit, before) for i, unit in enumerate(UNITS) for before in ("", BEFORE[i % 3])]


def all_of(text: str) -> None:
    code_validity(text, True)
    latex_validity(text, True)
    latex_first(text)
    distinct_words(text)
    mentions(text, ["a b", "none"])


@pytest.mark.slow
@pytest.mark.parametrize(("unit", "before"), CASES)
def test_four_times_the_text_takes_about_four_times_the_time(unit, before):
    def seconds(length: int) -> float:
        text = before + unit * (length // len(unit))
        began = time.thread_time()
        all_of(text)
        return time.thread_time() - began

    for _ in range(3):  # another process may have slowed one of the two down
        if (long := seconds(40_000)) < 0.5 or long < 4 * 3 * seconds(10_000):
            return
    raise AssertionError(f"{long:.1f} s")
