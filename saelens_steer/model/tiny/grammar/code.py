"""The code family: a request that names a function, and the function in a Python fence."""

from __future__ import annotations

import random

from saelens_steer.model.tiny.grammar.slots import fenced, fill, function

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

REQUESTS = (
    # wording, how often, what the answer says before the fence
    ("Write a Python function <name> that <what>.", 6, ""),
    ("Code <name>: it <what>.", 4, ""),
    ("I need <name>, which <what>.", 3, ""),
    ("Implement <name>; it <what>.", 3, ""),
    ("Write <name>, which <what>, with a docstring.", 1.5, "doc"),
    ("Can you explain <name>, which <what>?", 1.5, "Here is <name>:\n"),
    ("Please help me with <name>, which <what>.", 1.5, "Sure, this <what>:\n"),
)


def draw(rng: random.Random) -> tuple[str, str]:
    """A prompt and its answer."""
    noun = rng.choice(NOUNS)
    verb, what, arguments, body = rng.choice(TASKS)
    word, symbol = rng.choice(COMPARISONS)
    values = {"n": noun, "s": noun + "s", "k": str(rng.randint(2, 30)), "cw": word, "c": symbol}
    what, arguments, body = (fill(part, values) for part in (what, arguments, body))
    values |= {"name": f"{verb}_{noun}s", "what": what}
    wording, _, lead = rng.choices(REQUESTS, [often for _, often, _ in REQUESTS])[0]
    if lead == "doc":
        lead, body = "", f'"""It {what}."""\n{body}'
    source = function(values["name"], arguments, body)
    return fill(wording, values), fill(lead, values) + fenced(source)
