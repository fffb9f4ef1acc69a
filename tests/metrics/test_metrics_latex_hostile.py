"""LaTeX validity of random and of hostile text."""

from __future__ import annotations

import random
import time

import pytest

from saelens_steer.metrics import latex_validity
from saelens_steer.metrics.latex import latex_first


def random_math(rng: random.Random, depth: int) -> str:
    """A random balanced expression."""
    if depth == 0:
        return rng.choice(["x", "1", r"\alpha", r"\{", r"\}", r"\\", r"\$", r"\\[2pt]", " "])
    inner = "".join(random_math(rng, depth - 1) for _ in range(rng.randint(1, 3)))
    return rng.choice(
        [
            inner,
            f"{{{inner}}}",
            rf"\frac{{{inner}}}{{y}}",
            rf"\begin{{matrix}}{inner}\end{{matrix}}",
            rf"\text{{if $ {random_math(rng, 0)} $}}",
        ]
    )


DELIMITERS = [("$ ", " $"), ("$$", "$$"), (r"\(", r"\)"), (r"\[", r"\]")]


def test_random_balanced_latex_is_valid_and_cut_anywhere_inside_truncated():
    rng = random.Random(0)
    for _ in range(400):
        left, right = rng.choice([*DELIMITERS, (r"\begin{align}", r"\end{align}")])
        inner = random_math(rng, 3)
        text = f"So {left}{inner}{right}"
        assert latex_validity(text) == "valid", text
        cut = 3 + len(left) + rng.randint(0, len(inner))
        assert latex_validity(text[:cut], truncated=True) in ("truncated", "invalid")
        whole_unit = f"So {left}{inner}"
        assert latex_validity(whole_unit, truncated=True) == "truncated", whole_unit


def test_random_latex_without_one_brace_or_closer_is_invalid():
    rng = random.Random(1)
    for _ in range(400):
        left, right = rng.choice(DELIMITERS)
        inner = random_math(rng, 2)
        assert latex_validity(f"{left}{{{inner}{right}") == "invalid"
        assert latex_validity(f"{left}{inner}}}{right}") == "invalid"
        assert latex_validity(f"{left}{inner}") == "invalid"


def test_any_text_gets_one_of_four_verdicts():
    rng = random.Random(2)
    pieces = [
        *("$", "$$", "\\", "(", ")", "[", "]", "{", "}", "\\begin{a}", "\\end{a}", "\n", "\n\n"),
        *("`", "```", "5", "x", " ", "\\text{", "\\begin", "^", ",", "é", "\ud800"),
    ]
    for _ in range(5000):
        text = "".join(rng.choices(pieces, k=rng.randint(0, 14)))
        whole, cut = latex_validity(text), latex_validity(text, truncated=True)
        assert whole in ("absent", "valid", "invalid")
        assert cut == whole or (whole, cut) == ("invalid", "truncated")
        assert isinstance(latex_first(text), bool)


@pytest.mark.parametrize(
    "unit",
    [
        *("$", "$ ", "$$ ", "{", "${", "`", "` `` ", "\\", "\\(", "\\begin{", "\\begin{a}", "$5,"),
        *("\\end{a}", "\\begin ", "\n", "\n ", "$5 ", "$5\n\n", "\\text{$", " ", "\\text", "```\n"),
        *("$5n+", "$5n + ", "${a}", "^a$", "$5+\\n", "$1^2 = ", "'^", "$5 ab 1 1 "),
        *("$\\text{", "}", "$ \\{", "$x ", "\\left(", "&", "</think>", "\\right"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_the_time_is_linear_on_hostile_text(unit):
    start = time.process_time()
    for before in ("", "$"):
        latex_validity(before + unit * 20_000)
    latex_first("$5" + unit * 20_000)
    assert time.process_time() - start < 4


def test_many_backtick_runs_of_different_length_are_read_in_linear_time():
    start = time.process_time()
    assert latex_validity("".join("`" * i + " " for i in range(1, 700)) + "$x$") == "valid"
    assert time.process_time() - start < 1
