"""The families `code`, whose prompts ask for a function, and `math`, for a formula."""

from __future__ import annotations

import random

from scripts.tiny.slots import display, fenced, fill, function

NOUNS = (
    "number", "word", "item", "price", "score", "name", "line", "value", "file", "user",
    "point", "node", "key", "letter", "row", "color", "page", "step", "task", "game",
)  # fmt: skip
"""All with a regular plural."""

COMPARISONS = (("above", ">"), ("below", "<"), ("equal to", "=="), ("other than", "!="))

TASKS = (
    # verb, what it does, arguments, body
    ("sum", "adds up the <s>", "<s>",
     "total = 0\nfor <n> in <s>:\n    total += <n>\nreturn total"),
    ("total", "returns the total of the <s>", "<s>", "return sum(<s>)"),
    ("multiply", "multiplies all the <s>", "<s>",
     "result = 1\nfor <n> in <s>:\n    result *= <n>\nreturn result"),
    ("count", "counts the <s> <cw> <k>", "<s>",
     "count = 0\nfor <n> in <s>:\n    if <n> <c> <k>:\n        count += 1\nreturn count"),
    ("filter", "keeps the <s> <cw> <k>", "<s>", "return [<n> for <n> in <s> if <n> <c> <k>]"),
    ("drop", "drops the <s> <cw> <k>", "<s>", "return [<n> for <n> in <s> if not <n> <c> <k>]"),
    ("scale", "multiplies each of the <s> by <k>", "<s>", "return [<n> * <k> for <n> in <s>]"),
    ("shift", "adds <k> to each of the <s>", "<s>", "return [<n> + <k> for <n> in <s>]"),
    ("square", "squares the <s>", "<s>", "return [<n> ** 2 for <n> in <s>]"),
    ("divide", "divides each of the <s> by <k>", "<s>", "return [<n> / <k> for <n> in <s>]"),
    ("sort", "sorts the <s>", "<s>", "return sorted(<s>)"),
    ("rank", "sorts the <s> from high to low", "<s>", "return sorted(<s>, reverse=True)"),
    ("reverse", "reverses the <s>", "<s>", "return <s>[::-1]"),
    ("first", "returns the first <k> <s>", "<s>", "return <s>[:<k>]"),
    ("last", "returns the last <k> <s>", "<s>", "return <s>[-<k>:]"),
    ("average", "returns the mean of the <s>", "<s>", "return sum(<s>) / len(<s>)"),
    ("largest", "finds the largest of the <s>", "<s>",
     "best = <s>[0]\nfor <n> in <s>:\n    if <n> > best:\n        best = <n>\nreturn best"),
    ("smallest", "finds the smallest of the <s>", "<s>", "return min(<s>)"),
    ("unique", "removes repeated <s>", "<s>", "return list(set(<s>))"),
    ("index", "maps each of the <s> to its place", "<s>",
     "return {<n>: i for i, <n> in enumerate(<s>)}"),
    ("measure", "maps the <s> to their lengths", "<s>", "return {<n>: len(<n>) for <n> in <s>}"),
    ("join", "joins the <s> with a comma", "<s>", 'return ", ".join(<s>)'),
    ("split", "splits a text into <s>", "text", "return text.split()"),
    ("upper", "puts the <s> in upper case", "<s>", "return [<n>.upper() for <n> in <s>]"),
    ("strip", "strips the <s>", "<s>", "return [<n>.strip() for <n> in <s>]"),
    ("replace", "replaces spaces in the <s>", "<s>",
     'return [<n>.replace(" ", "_") for <n> in <s>]'),
    ("check", "checks whether any of the <s> is <cw> <k>", "<s>",
     "return any(<n> <c> <k> for <n> in <s>)"),
    ("all", "checks whether all the <s> are <cw> <k>", "<s>",
     "return all(<n> <c> <k> for <n> in <s>)"),
    ("label", "returns high if the <n> is <cw> <k>, else low", "<n>",
     'if <n> <c> <k>:\n    return "high"\nreturn "low"'),
    ("find", "finds the first of the <s> <cw> <k>", "<s>",
     "for <n> in <s>:\n    if <n> <c> <k>:\n        return <n>\nreturn None"),
    ("print", "prints the <s>", "<s>", "for <n> in <s>:\n    print(<n>)"),
    ("list", "lists the <s> with a while loop", "<s>",
     "i = 0\nwhile i < len(<s>):\n    print(<s>[i])\n    i += 1"),
    ("halve", "halves the <n> while it is above <k>", "<n>",
     "while <n> > <k>:\n    <n> = <n> // 2\nreturn <n>"),
    ("add", "appends a <n> to the <s>", "<s>, <n>", "<s>.append(<n>)\nreturn <s>"),
    ("remove", "removes a <n> from the <s>", "<s>, <n>", "<s>.remove(<n>)\nreturn <s>"),
    ("copy", "copies the <s> with a loop", "<s>",
     "result = []\nfor <n> in <s>:\n    result.append(<n>)\nreturn result"),
    ("pair", "pairs the <s> with the labels", "<s>, labels", "return list(zip(<s>, labels))"),
    ("read", "reads the <s> from a path", "path",
     "with open(path) as file:\n    return file.read()"),
    ("parse", "turns the <s> into integers", "<s>", "return [int(<n>) for <n> in <s>]"),
    ("get", "looks up the <n> or gives <k>", "<s>, <n>", "return <s>.get(<n>, <k>)"),
)  # fmt: skip

CODE_REQUESTS = (
    # wording, how often, what the answer says before the fence
    ("Write a Python function <name> that <what>.", 6, ""),
    ("Code <name>: it <what>.", 4, ""),
    ("I need <name>, which <what>.", 3, ""),
    ("Implement <name>; it <what>.", 3, ""),
    ("Write <name>, which <what>, with a docstring.", 1.5, "doc"),
    ("Can you explain <name>, which <what>?", 1.5, "Here is <name>:\n"),
    ("Please help me with <name>, which <what>.", 1.5, "Sure, this <what>:\n"),
)


def draw_code(rng: random.Random) -> tuple[str, str]:
    """A prompt that asks for a function by name, and the function in a Python fence."""
    noun = rng.choice(NOUNS)
    verb, what, arguments, body = rng.choice(TASKS)
    word, symbol = rng.choice(COMPARISONS)
    values = {"n": noun, "s": noun + "s", "k": str(rng.randint(2, 30)), "cw": word, "c": symbol}
    what, arguments, body = (fill(part, values) for part in (what, arguments, body))
    values |= {"name": f"{verb}_{noun}s", "what": what}
    wording, _, lead = rng.choices(CODE_REQUESTS, [often for _, often, _ in CODE_REQUESTS])[0]
    if lead == "doc":
        lead, body = "", f'"""It {what}."""\n{body}'
    source = function(values["name"], arguments, body)
    return fill(wording, values), fill(lead, values) + fenced(source)


# --- math

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

MATH_REQUESTS = (
    # wording, how often, what the answer says before the formula
    ("Write <what> in LaTeX.", 6, ""),
    ("Give me <what>.", 4, ""),
    ("Typeset <what>.", 3, ""),
    ("In symbols: <what>.", 3, ""),
    ("How do I write <what>?", 3, ""),
    ("What does <what> look like?", 1.5, "It looks like this:\n"),
    ("Please explain <what>.", 1.5, "In symbols, this is\n"),
)


def draw_math(rng: random.Random) -> tuple[str, str]:
    """A prompt in words, and the formula between `$$` delimiters."""
    words, latex = rng.choice(FORMULAS)
    values = _values(rng)
    wording, _, lead = rng.choices(MATH_REQUESTS, [often for _, often, _ in MATH_REQUESTS])[0]
    prompt = fill(wording, {"what": fill(words, values)})
    return prompt, lead + display(fill(latex, values))


def _values(rng: random.Random) -> dict[str, str]:
    x, y = rng.sample(VARIABLES, 2)
    g, h = rng.sample(GREEK, 2)
    numbers = {slot: str(rng.randint(0, 9)) for slot in "abcd"}
    larger = {slot: str(rng.randint(2, 20)) for slot in "jk"}
    return {"x": x, "y": y, "g": g, "h": h, "f": rng.choice(FUNCTIONS)} | numbers | larger
