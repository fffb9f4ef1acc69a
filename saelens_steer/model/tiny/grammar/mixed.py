r"""The mixed family: a formula and a function, in an order that the wording decides.

P(formula first) = sigmoid(sum of the weights of the phrases in the prompt). The weights run from
-3 to 3 with many values between, so that a model which has learned them has graded odds for its
first token, `$$` or the code fence.
"""

from __future__ import annotations

import math
import random

from saelens_steer.model.tiny.grammar.mixed_topics import TOPICS
from saelens_steer.model.tiny.grammar.slots import display, fenced, fill, function

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


def draw(rng: random.Random) -> tuple[str, str]:
    """A prompt and its answer, the order drawn by the odds of the wording."""
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
    """The sum of the weights of the phrases in the prompt: log-odds of the formula first."""
    lower = prompt.lower()
    openings = [w for text, w in OPENINGS.items() if prompt.startswith(text + " ")]
    cues = [w for text, w in CUES.items() if text.lower() in lower]
    tails = [w for text, w in TAILS.items() if text and text in lower]
    topics = [topic.weight for topic in TOPICS if topic.key in lower]
    return sum(openings) + sum(cues) + sum(tails) + sum(topics)
