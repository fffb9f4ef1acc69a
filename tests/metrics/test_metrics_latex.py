"""LaTeX validity of a completion, and whether it comes first."""

from __future__ import annotations

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
        "C = $5n + $20",  # sums of money
        "$5x + $3y = $20",
        "It grows to $1,000(1.05)^2 = $1,102.50.",
        "$3x - $2 > $10 or $5x+$3y",
        "Hello ${n}, or ${a} and ${b}, or ${a}${b}/${c}",
        r"The pattern ^\d+$ matches digits, ^[a-z]*$ letters",
        "/^abc$/ matches abc",
        "Its pattern is '^a.c$'",
        "one $ of many words here $ and so on",
        "It costs $5 and all the rest$.",  # a stray behind a word
        "They paid $5,000 for each of the\ntwo houses$ in 1990",
        "This is all the rest$",
        "The $v variable holds text, and a function gets $v by value.",  # several variables
        "In Perl, $k and $$k differ: the second follows $k to what it names.",
        "Neither $$a nor $$b is set.",
        "Perl puts a file name into $f and costs $0.",
        "The shell puts C:\\Windows\\Temp into $TEMP, or into $dir: \\Windows\\System",
        "The signs $q and $$ differ, as do most others.",
        "Two paths:\n\n$HOME is one.\n\n$PATH holds several.",
        "Bread costs $2 and milk costs $",  # a price, as before it
        "He paid in dollars$.",
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
        "It costs $5, and $x$ is all the rest$",
        "$5 per hour$ and $100 million dollars$",
        "$2 and 3$ are prime",
        "$$Area = width $$where $$x$$ is $$y$$ and $$z $$too",
        "The $v variable holds $w, not $u$.",
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
        r"$$\fbox{$x = 1$}$$",
        r"\[ \textup{if $x$} \emph{ or $y$} \textsc{ or $z$} \]",
        "$5n + $20 is due, and $n$ is even",
        "${a}$ and ${b}$, cm$^2$ and 30$^\\circ$",
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
        "then x ^ 2$ is large",
        "so cos(t)$, which is at most 1",
        "so (a + b)^2$ is",
        "and f'^2$ is",
        "${x}^2 is large",
        "$5x + $3y$",
        "$x$ is less than $y",
        "$x is less than\n\n$y",
        "$$x is less than all others",
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
        "the angle $θ_a is small",
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
        ("of r^2$, since $x$ is", "invalid"),  # lacks its first dollar
        ("of f(x, y)$ and", "invalid"),
        ("of $m$ and n$.", "invalid"),
        ("$$ a =\n```python\nx = 1", "invalid"),  # the block parts it
        ("\\[ a\n```\nb\n```\nc", "invalid"),
    ],
)
def test_a_cut_elsewhere_changes_nothing(text, verdict):
    assert latex_validity(text, truncated=True) == verdict


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
