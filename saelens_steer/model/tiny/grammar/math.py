r"""The math family: a request in words, and the formula between `$$` delimiters."""

from __future__ import annotations

import random

from saelens_steer.model.tiny.grammar.slots import display, fill

VARIABLES = ("x", "y", "z", "t", "u", "v", "a", "b", "r", "s")
GREEK = ("alpha", "beta", "gamma", "theta", "lambda", "mu", "sigma", "omega", "phi", "delta")
FUNCTIONS = ("sin", "cos", "tan", "log", "exp")

FORMULAS = (
    # in words, in LaTeX
    ("<x> over <y>", r"\frac{<x>}{<y>}"),
    ("<j> over <k>", r"\frac{<j>}{<k>}"),
    ("<x> plus <k> over <y>", r"\frac{<x> + <k>}{<y>}"),
    ("one over one plus <x> squared", r"\frac{1}{1 + <x>^{2}}"),
    ("the square root of <x>", r"\sqrt{<x>}"),
    ("the square root of <k> <x>", r"\sqrt{<k> <x>}"),
    ("the root of <x> squared plus <y> squared", r"\sqrt{<x>^{2} + <y>^{2}}"),
    ("the cube root of <x>", r"\sqrt[3]{<x>}"),
    ("<x> to the power <k>", r"<x>^{<k>}"),
    ("<x> to the power <y> plus <k>", r"<x>^{<y> + <k>}"),
    ("e to the minus <k> <x>", r"e^{-<k> <x>}"),
    ("the sum of i from 1 to <k>", r"\sum_{i=1}^{<k>} i"),
    ("the sum of <x> sub i from 1 to n", r"\sum_{i=1}^{n} <x>_{i}"),
    ("the sum of i squared up to n", r"\sum_{i=1}^{n} i^{2}"),
    ("the infinite sum of <x> to the n", r"\sum_{n=0}^{\infty} <x>^{n}"),
    ("the product of <x> sub i from 1 to n", r"\prod_{i=1}^{n} <x>_{i}"),
    ("the integral of <f> <x> from <j> to <k>", r"\int_{<j>}^{<k>} \<f>(<x>) \, d<x>"),
    ("the integral of <x> squared from 0 to <k>", r"\int_{0}^{<k>} <x>^{2} \, d<x>"),
    ("the integral of <f> <x>", r"\int \<f>(<x>) \, d<x>"),
    ("the derivative of <f> <x>", r"\frac{d}{d<x>} \<f>(<x>)"),
    ("the partial derivative of f in <x>", r"\frac{\partial f}{\partial <x>}"),
    ("the limit of <f> <x> as <x> goes to <k>", r"\lim_{<x> \to <k>} \<f>(<x>)"),
    ("the limit of one over <x> at infinity", r"\lim_{<x> \to \infty} \frac{1}{<x>}"),
    ("the matrix with rows <a> <b> and <c> <d>",
     r"\begin{pmatrix} <a> & <b> \\ <c> & <d> \end{pmatrix}"),
    ("the vector <x> and <y>", r"\begin{pmatrix} <x> \\ <y> \end{pmatrix}"),
    ("the identity matrix of size 2", r"I = \begin{pmatrix} 1 & 0 \\ 0 & 1 \end{pmatrix}"),
    ("<f> of <g>", r"\<f>(\<g>)"),
    ("<f> squared of <g>", r"\<f>^{2}(\<g>)"),
    ("the rule that sin squared plus cos squared of <g> is 1",
     r"\sin^{2}(\<g>) + \cos^{2}(\<g>) = 1"),
    ("<g> plus <k> <h>", r"\<g> + <k> \<h>"),
    ("<g> times <x> over <h>", r"\frac{\<g> <x>}{\<h>}"),
    ("<x> equals <k> <y> plus <j>", r"<x> = <k> <y> + <j>"),
    ("<x> squared minus <k> equals 0", r"<x>^{2} - <k> = 0"),
    ("the line with slope <j> and height <k>", r"y = <j> x + <k>"),
    ("<x> is at most <k>", r"<x> \leq <k>"),
    ("<x> is at least <y> plus <k>", r"<x> \geq <y> + <k>"),
    ("<x> is not <k>", r"<x> \neq <k>"),
    ("<x> lies in the set of <j> and <k>", r"<x> \in \{<j>, <k>\}"),
    ("n choose <k>", r"\binom{n}{<k>}"),
    ("the length of the vector <x>", r"\left\| \vec{<x>} \right\|"),
    ("the absolute value of <x> minus <k>", r"\left| <x> - <k> \right|"),
    ("the mean of <x>", r"\bar{<x>} = \frac{1}{n} \sum_{i=1}^{n} <x>_{i}"),
    ("the variance of <x>", r"\sigma^{2} = \frac{1}{n} \sum_{i=1}^{n} (<x>_{i} - \mu)^{2}"),
    ("the log of <x> to base <k>", r"\log_{<k>} <x>"),
    ("the dot product of <x> and <y>", r"\vec{<x>} \cdot \vec{<y>}"),
    ("the roots of <x> squared plus <j> <x> plus <k>",
     r"<x> = \frac{-<j> \pm \sqrt{<j>^{2} - 4 \cdot <k>}}{2}"),
    ("the probability of A given B", r"P(A \mid B) = \frac{P(A \cap B)}{P(B)}"),
    ("the area of a circle of radius <x>", r"A = \pi <x>^{2}"),
)  # fmt: skip

REQUESTS = (
    # wording, how often, what the answer says before the formula
    ("Write <what> in LaTeX.", 6, ""),
    ("Give me <what>.", 4, ""),
    ("Typeset <what>.", 3, ""),
    ("In symbols: <what>.", 3, ""),
    ("How do I write <what>?", 3, ""),
    ("What does <what> look like?", 1.5, "It looks like this:\n"),
    ("Please explain <what>.", 1.5, "In symbols, this is\n"),
)


def draw(rng: random.Random) -> tuple[str, str]:
    """A prompt and its answer."""
    words, latex = rng.choice(FORMULAS)
    values = _values(rng)
    wording, _, lead = rng.choices(REQUESTS, [often for _, often, _ in REQUESTS])[0]
    prompt = fill(wording, {"what": fill(words, values)})
    return prompt, lead + display(fill(latex, values))


def _values(rng: random.Random) -> dict[str, str]:
    x, y = rng.sample(VARIABLES, 2)
    g, h = rng.sample(GREEK, 2)
    numbers = {slot: str(rng.randint(0, 9)) for slot in "abcd"}
    larger = {slot: str(rng.randint(2, 20)) for slot in "jk"}
    return {"x": x, "y": y, "g": g, "h": h, "f": rng.choice(FUNCTIONS)} | numbers | larger
