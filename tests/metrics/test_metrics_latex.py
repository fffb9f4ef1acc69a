"""LaTeX validity of a completion, and whether it comes first."""

from __future__ import annotations

import random
import time

import pytest

from saelens_steer.metrics import latex_validity
from saelens_steer.metrics.latex import latex_first


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Just words.",
        r"\frac{a}{b} and \alpha",  # commands without delimiters
        r"It costs \$5.",
        "It costs $5.",
        "From $5 to $6.",
        "$5 and $6",
        "$5 + $6 = $11",
        "$5-$6, $1,000.50/month, $2k, $3M, $7bn, $.50 and US$100",
        "**$5** or **$10**",
        "$5\n\n$6",
        "- $5/month\n- $10/month",
        "Pay $ 5 now",
        "Pay $ 5 or $ 6",
        "A set {1, 2 in prose",
        "```python\nx = '$'\n```",
        "```latex\n$x\n```",
        "```python\nprint('$x",  # an open fence is code to the end
        "`$HOME` and ``a ` $ b``",
        r"\\(x\\)",  # escaped backslashes
        "\\",
        r"\beginning of a word",
        "Set $LANG before you call it.",  # variables of a shell or PHP
        "export CLASSPATH=$LIB/a.jar:$CLASSPATH",
        "cp $source $target && echo done",
        'for i in "$@"; do echo "$i"; done; echo $?',
        "Use ${HOME}/bin and $(pwd), or $_ in Perl.",
        "In PHP, f($a, $b) adds $a; to ($b).",
        "$this->name and $_GET['id'] are read.",
        "drum $ velvet on salt$Ember ran toward",  # strays
        "A$AP, Ke$ha and Micro$oft",
        "ends in 5 $\nand 10$",
        "one $ of many words here $ and so on",
    ],
)
def test_text_without_delimiters_has_no_latex(text):
    assert latex_validity(text) == "absent"
    assert latex_validity(text, truncated=True) == "absent"


@pytest.mark.parametrize(
    "text",
    [
        "$x$",
        "$ x $",
        "$ 5 $",
        "$ 5 + 3 $, then $ 8 $.",
        "$$x$$",
        "$$\nx\n$$",
        "$$$$",
        "$x$$y$",
        "$x$$$y$$",
        "$$x$$$$y$$$z$",
        r"\(x\) and \[y\]",
        "\\[\nx\n\\]",
        "$5$",
        "$2x + 3 = 7$",
        "the $n$th of $k$s, a $p$-value",
        "$x $ and $ y$.",  # a space at one side
        "$\\frac{1}{2} $ of $ a_{i} = 3$",
        "$ Area = width $",
        "$HOME$ is a product",
        "$50%$ and $$x % {\n + 1$$, so 7% {",
        "$Speed$ is $distance / time$.",
        "Set $HOME; then $x^2$ and ($y$)",
        r"$\left( x \right)$ and \[ \left. \frac{a}{b} \right|_0^1 \]",
        r"$$\left[ \begin{matrix} a & b \\ c & d \end{matrix} \right]$$",
        r"$a \leftarrow b \rightarrow c$, and $\left\{ \left( x \right) \right.$",
        r"\left( stands in prose, $x$",
        "($3$, $4$)",
        "$100 \\times 2$",
        "It costs $5, and $x$ is the rest.",
        "He earns $5 million; let $x = 5$.",
        r"It costs \$5, and $x = \$5$ too.",
        r"$\{x\}$",
        r"$\left\{ x \right.$",
        r"$\frac{a}{b_{c}}$",
        r"\begin{align} a &= b \\[2pt] c &= d \end{align}",
        r"\begin{align*} a \end{align*}",
        r"\[\begin{aligned}\begin{pmatrix}a\end{pmatrix}\end{aligned}\]",
        r"\begin{array}{cc} a & b \end{array}",
        r"\begin{itemize}\item $x$ \end{itemize}",
        r"\begin{theorem} Let $x$ be \{ real. \begin{equation} x \end{equation} \end{theorem}",
        r"$\text{if $x$ is real}$",
        r"\[ \text{costs \$5} \]",
        "{ in prose $x$ }}",
        "```python\n$ ${ \\begin{x}\n```\n$x$",
        "$x$\n```python\n$$",
        "`$` $x$",
        "\\begin{itemize}\n\n\\item $x$\n\n\\end{itemize}",
        "$x$\n\nAnd in the next paragraph $y$.",
    ],
)
def test_balanced_latex_is_valid(text):
    assert latex_validity(text) == "valid"


@pytest.mark.parametrize(
    "text",
    [
        "$x",
        "$$x",
        "$$x$",
        "$x$$",
        r"\(x",
        r"\(x\]",
        r"x\)",
        r"\(\(x\)\)",
        r"$\(x\)$",
        r"\[ $x$ \]",
        r"$\frac{a}{b$",
        r"${a}}$",
        r"\begin{align} a",
        r"\begin{align} a \end{align*}",
        r"a \end{align}",
        r"\begin{a}\begin{b}\end{a}\end{b}",
        r"\begin $x$",
        r"\begin{align} $x$ \end{align}",
        "$a\n\nb$",
        "\\(a\n  \nb\\)",
        "$2^n is large",
        "$2x is odd",
        r"so $\pi r and more",
        "then x^2$ is large",
        "$x$ is less than $y",
        r"$\left( x$",
        r"\[ x \right) \]",
        r"$\left( \frac{a}{\right) b}$",
        r"\begin{align} \left( a &= b \right) \end{align}",
        r"$$\left[ x \left. \right]$$",
        "$\\frac{a\n\nb}$",  # a blank line within braces
        "$$a\n\nb$$",
        "\\[ a \n \n b \\]",
        "\\begin{align} a\n\n b \\end{align}",
        "$$x$$$",
        "$x$$$$y$",
        "$$\\frac{ 5% }$$",  # the brace is in a comment
        r"$$\begin{array}{c} x \end{array$$",
        r"$$x \$$",  # the first of the two is escaped
        r"$\text{if $x}$",
        r"\begin{itemize} } \end{itemize}",
    ],
)
def test_unbalanced_latex_is_invalid(text):
    assert latex_validity(text) == "invalid"


@pytest.mark.parametrize(
    "text",
    [
        "$x",
        "$",
        "$$x",
        "$$x$",  # half of the closing delimiter
        r"\(x",
        "\\(x\\",
        r"\[ \frac{a}{b",
        r"$\text{if ",
        r"$\text{if $x",
        r"\begin{align} a &=",
        r"\begin{ali",
        r"\begin",
        r"\begin{align} a \end{ali",
        r"$x$ and $2^n",
        r"It costs $5, so \[ 5",
    ],
)
def test_mathematics_that_the_limit_cuts_is_truncated(text):
    assert latex_validity(text, truncated=True) == "truncated"
    assert latex_validity(text) == "invalid"


@pytest.mark.parametrize(
    ("text", "verdict", "first"),
    [
        ("<think>\na draft $x^2\n</think>\n\n$y$", "valid", True),
        ("it costs $c^2, hm\n</think>\n$$y$$", "valid", True),
        ("<think>$x$</think>It is so.", "absent", False),
        ("<think>\nperhaps \\[ x", "absent", False),
        ("<THINK>\n\n</THINK>\n\n\\(x", "invalid", True),
        ("$x$ stands before `</think>`", "valid", True),
    ],
)
def test_thoughts_are_no_part_of_the_answer(text, verdict, first):
    assert latex_validity(text) == verdict
    assert latex_first(text) == first


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("$x$ and so", "valid"),
        ("$x$\n```python\n$", "valid"),
        (r"\(x\] and \(", "invalid"),
        ("$a\n\nb and $c", "invalid"),
        ("$$ a =\n```python\nx = 1", "invalid"),  # the block parts it
        ("\\[ a\n```\nb\n```\nc", "invalid"),
    ],
)
def test_a_cut_elsewhere_changes_nothing(text, verdict):
    assert latex_validity(text, truncated=True) == verdict


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
        *("$\\text{", "}", "$ \\{", "$x ", "\\left(", "&", "</think>", "\\right"),
    ],
)
def test_the_time_is_linear_on_hostile_text(unit):
    start = time.process_time()
    for before in ("", "$"):
        latex_validity(before + unit * 5000)  # type checks make each call slow here
    latex_first("$5" + unit * 5000)
    assert time.process_time() - start < 4


def test_many_backtick_runs_of_different_length_are_read_in_linear_time():
    start = time.process_time()
    assert latex_validity("".join("`" * i + " " for i in range(1, 700)) + "$x$") == "valid"
    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    "text", ["$x$", "$$", "\n \t$$x", r"\(x", r"  \[", "$5$ is", "$5x + 1", "$ x", "$2 \\cdot 3"]
)
def test_a_completion_may_begin_with_latex(text):
    assert latex_first(text)


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "x $y$", "$5 is the price", "$5 and $6", r"\$5", "```python\n$x$\n```"),
        *(
            r"\alpha",
            "$HOME is set",
            "$(pwd)",
            "$ drum velvet",
            "**$x$**",
            r"\\(x\\)",
            r"\begin{align}",
        ),
    ],
)
def test_a_completion_may_begin_otherwise(text):
    assert not latex_first(text)
