r"""The mixed family: a formula and a function, in an order that the wording decides.

P(formula first) = sigmoid(sum of the weights of the phrases in the prompt). Weights take many
values from -3 to 3, so that a model that has learned them has graded odds for its first token,
`$$` or the code fence.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from scripts.tiny.slots import display, fenced, fill, function

VARIABLES = ("x", "y", "r", "s", "t", "a", "b", "n", "m", "h")

OPENINGS: dict[str, float] = {
    "Derive": 1.0, "State": 0.8, "Define": 0.6, "Describe": 0.45, "Explain": 0.3, "Present": 0.15,
    "Show": 0.0, "Give": 0.0, "Find": -0.1, "Calculate": -0.25, "Compute": -0.4, "Build": -0.7,
    "Implement": -0.9, "Program": -1.1,
}  # fmt: skip

CUES: dict[str, float] = {
    "give the formula, then the code": 3.0,
    "first the equation, then a function": 2.6,
    "start with LaTeX": 2.3,
    "put the math before the program": 2.0,
    "give the formula and a function": 1.6,
    "with the equation and some code": 1.3,
    "as an equation with a script": 1.0,
    "in symbols and in code": 0.8,
    "as math and as a program": 0.6,
    "using LaTeX and Python": 0.4,
    "show the idea and both forms": 0.25,
    "on paper and in Python": 0.15,
    "show both": 0.05,
    "both ways": 0.0,
    "give two versions": -0.05,
    "in two forms": -0.1,
    "answer in both languages": -0.2,
    "using Python and LaTeX": -0.4,
    "as a program and as math": -0.6,
    "in code and in symbols": -0.8,
    "as a script with an equation": -1.0,
    "show the code with its equation": -1.3,
    "write a function and the formula behind it": -1.6,
    "put the program before the math": -2.0,
    "start with Python": -2.3,
    "first a function, then the equation": -2.6,
    "give the code, then the formula": -3.0,
}

TAILS: dict[str, float] = {
    "": 0.0, " for a student": 0.5, " for a math class": 0.7, " for my notes": 0.25,
    " please": 0.1, " in short": 0.0, " for a friend": -0.05, " for a quick test": -0.3,
    " for a developer": -0.5, " for my project": -0.7,
}  # fmt: skip


@dataclass(frozen=True)
class Topic:
    """A fact in words, LaTeX and Python; `weight` adds a little to the log-odds of LaTeX first."""

    key: str
    """A phrase that occurs in this topic's prompts only."""
    weight: float
    words: str
    latex: str
    name: str
    arguments: str
    result: str


def _topic(weight: float, words: str, latex: str, name: str, arguments: str, result: str) -> Topic:
    return Topic(words.split("<")[0].lower(), weight, words, latex, name, arguments, result)


TOPICS = (
    _topic(0.2, "the area of a circle of radius <x>",
           r"A = \pi <x>^{2}", "circle_area", "<x>", "3.14 * <x> ** 2"),
    _topic(0.0, "the area of a square of side <x>", r"A = <x>^{2}", "square_area", "<x>",
           "<x> ** 2"),
    _topic(-0.1, "the area of a box <x> by <y>", r"A = <x> \cdot <y>", "box_area", "<x>, <y>",
           "<x> * <y>"),
    _topic(0.3, "the long side over <x> and <y>", r"c = \sqrt{<x>^{2} + <y>^{2}}",
           "long_side", "<x>, <y>", "(<x> ** 2 + <y> ** 2) ** 0.5"),
    _topic(0.1, "the volume of a cube of side <x>", r"V = <x>^{3}", "cube_volume", "<x>",
           "<x> ** 3"),
    _topic(0.3, "the volume of a ball of radius <x>", r"V = \frac{4}{3} \pi <x>^{3}",
           "ball_volume", "<x>", "4 / 3 * 3.14 * <x> ** 3"),
    _topic(-0.3, "the mean of <x> and <y>", r"\frac{<x> + <y>}{2}", "mean", "<x>, <y>",
           "(<x> + <y>) / 2"),
    _topic(-0.4, "the average of a list <x>", r"\frac{1}{n} \sum_{i=1}^{n} <x>_{i}", "list_mean",
           "<x>", "sum(<x>) / len(<x>)"),
    _topic(-0.3, "the sum of a list <x>", r"\sum_{i=1}^{n} <x>_{i}", "list_sum", "<x>",
           "sum(<x>)"),
    _topic(0.1, "the sum of the first <x> numbers", r"\frac{<x> (<x> + 1)}{2}", "first_sum", "<x>",
           "<x> * (<x> + 1) // 2"),
    _topic(0.0, "the sum of squares up to <x>", r"\sum_{i=1}^{<x>} i^{2}", "square_sum", "<x>",
           "sum(i ** 2 for i in range(<x> + 1))"),
    _topic(0.2, "the sum of powers of 2 up to <x>", r"\sum_{i=0}^{<x>} 2^{i}", "power_sum", "<x>",
           "sum(2 ** i for i in range(<x> + 1))"),
    _topic(0.4, "the slope through <x> and <y>", r"\frac{\Delta <y>}{\Delta <x>}", "slope",
           "<x>, <y>", "(<y>[1] - <y>[0]) / (<x>[1] - <x>[0])"),
    _topic(0.0, "the distance of <x> and <y>", r"\left| <x> - <y> \right|", "distance",
           "<x>, <y>", "abs(<x> - <y>)"),
    _topic(-0.1, "the speed over length <x> and time <y>", r"\frac{<x>}{<y>}", "speed",
           "<x>, <y>", "<x> / <y>"),
    _topic(0.4, "the force on mass <x> with change <y>", r"F = <x> \cdot <y>", "force",
           "<x>, <y>", "<x> * <y>"),
    _topic(0.4, "the energy of mass <x> at speed <y>", r"E = \frac{1}{2} <x> <y>^{2}", "energy",
           "<x>, <y>", "0.5 * <x> * <y> ** 2"),
    _topic(-0.4, "the step from <x> degrees to heat", r"F = \frac{9}{5} <x> + 32", "to_heat",
           "<x>", "9 / 5 * <x> + 32"),
    _topic(-0.3, "the price <x> with rate <y>", r"P = <x> (1 + <y>)", "price", "<x>, <y>",
           "<x> * (1 + <y>)"),
    _topic(-0.1, "the growth of <x> over <y> years", r"<x> (1.05)^{<y>}", "growth", "<x>, <y>",
           "<x> * 1.05 ** <y>"),
    _topic(0.3, "the product of all numbers to <x>", r"<x>! = \prod_{i=1}^{<x>} i", "factorial",
           "<x>", "1 if <x> < 2 else <x> * factorial(<x> - 1)"),
    _topic(-0.2, "the largest of <x> and <y>", r"\max(<x>, <y>)", "largest", "<x>, <y>",
           "max(<x>, <y>)"),
    _topic(-0.2, "the smallest of <x> and <y>", r"\min(<x>, <y>)", "smallest", "<x>, <y>",
           "min(<x>, <y>)"),
    _topic(-0.4, "the rest of <x> divided by <y>", r"<x> \bmod <y>", "rest", "<x>, <y>",
           "<x> % <y>"),
    _topic(0.0, "the power <x> to the <y>", r"<x>^{<y>}", "power", "<x>, <y>", "<x> ** <y>"),
    _topic(0.2, "the square root of <x>", r"\sqrt{<x>}", "root", "<x>", "<x> ** 0.5"),
    _topic(0.1, "the inverse of <x>", r"<x>^{-1} = \frac{1}{<x>}", "inverse", "<x>", "1 / <x>"),
    _topic(0.4, "the sigmoid of <x>", r"\sigma(<x>) = \frac{1}{1 + e^{-<x>}}", "sigmoid", "<x>",
           "1 / (1 + 2.718 ** -<x>)"),
    _topic(-0.2, "the positive part of <x>", r"\max(0, <x>)", "positive", "<x>", "max(0, <x>)"),
    _topic(0.3, "the dot product of <x> and <y>", r"\sum_{i} <x>_{i} <y>_{i}", "dot", "<x>, <y>",
           "sum(a * b for a, b in zip(<x>, <y>))"),
    _topic(0.3, "the norm of a vector <x>", r"\sqrt{\sum_{i} <x>_{i}^{2}}", "norm", "<x>",
           "sum(i ** 2 for i in <x>) ** 0.5"),
    _topic(0.1, "the wave of height <x> at <y>", r"<x> \sin(<y>)", "wave", "<x>, <y>",
           "<x> * sin(<y>)"),
    _topic(0.2, "the line with slope <x> at <y>", r"f(<y>) = <x> <y> + 1", "line", "<x>, <y>",
           "<x> * <y> + 1"),
    _topic(-0.1, "the share of <x> in <y>", r"100 \cdot \frac{<x>}{<y>}", "share", "<x>, <y>",
           "100 * <x> / <y>"),
    _topic(-0.2, "the double of <x>", r"2 <x>", "double", "<x>", "2 * <x>"),
    _topic(0.0, "the difference of squares <x> and <y>", r"<x>^{2} - <y>^{2}", "difference",
           "<x>, <y>", "<x> ** 2 - <y> ** 2"),
)  # fmt: skip


def draw_mixed(rng: random.Random) -> tuple[str, str]:
    """A prompt and its answer, whose order is drawn by the odds of the wording."""
    topic = rng.choice(TOPICS)
    opening, cue = rng.choice(list(OPENINGS)), rng.choice(list(CUES))
    tail = rng.choice(list(TAILS)) if rng.random() < 0.6 else ""
    if rng.random() < 0.3:
        opening = ""
    values = dict(zip("xy", rng.sample(VARIABLES, 2), strict=True))
    prompt = fill(_wording(opening, topic.words, cue, tail), values)
    latex = display(fill(topic.latex, values))
    code = fenced(fill(function(topic.name, topic.arguments, f"return {topic.result}"), values))
    latex_first = rng.random() < 1 / (1 + math.exp(-log_odds(prompt)))
    return prompt, "\n\n".join((latex, code) if latex_first else (code, latex))


def _wording(opening: str, words: str, cue: str, tail: str) -> str:
    if opening:
        return f"{opening} {words}, {cue}{tail}."
    return f"{cue[0].upper()}{cue[1:]}{tail}: {words}."


def log_odds(prompt: str) -> float:
    """The log-odds of the formula first: the sum of the weights of the phrases in the prompt."""
    lower = prompt.lower()
    openings = [w for text, w in OPENINGS.items() if prompt.startswith(text + " ")]
    cues = [w for text, w in CUES.items() if text.lower() in lower]
    tails = [w for text, w in TAILS.items() if text and text in lower]
    topics = [topic.weight for topic in TOPICS if topic.key in lower]
    return sum(openings) + sum(cues) + sum(tails) + sum(topics)
