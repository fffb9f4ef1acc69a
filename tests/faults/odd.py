"""Odd configs, prompts and texts, as strategies of hypothesis."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(p for p in ROOT.glob("configs/**/*.yaml"))
WORDS = [
    *("", " ", "~", "null", "yes", "1e9", "-0", "0x10", "007", "2001-01-01", "../..", "/", "a\0b"),
    *(
        "\ud800",
        "\u202e",
        "é" * 300,
        "{}",
        "[]",
        "{{ x }}",
        "%s",
        "`",
        "'",
        "os:system",
        "kl",
        "add",
    ),
    *(
        "blocks.4.hook_resid_pre",
        "mean_difference@answer",
        "configs/tiny/requests.txt",
        "<b>",
        "\n",
    ),
]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, -1, 1, 2, 3, 2**31, 2**63, -(2**70), 10**30, 10**400]),
    st.integers(-5, 40),
    st.sampled_from([0.0, -0.5, 1.5, 1e-300, 1e300, math.inf, -math.inf, math.nan]),
    st.sampled_from(WORDS),
    st.text(max_size=12),
)
ODD = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(st.sampled_from(WORDS), st.text(max_size=6)), inner, max_size=3),
    ),
    max_leaves=8,
)


def nested(depth: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(depth):
        found = [found]
    return found


DEEP = st.integers(50, 200).map(nested)


def places(data: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The keys that lead to every value of nested data."""
    inner = (
        data.items()
        if isinstance(data, dict)
        else enumerate(data if isinstance(data, list) else ())
    )
    return [at, *(found for key, value in inner for found in places(value, (*at, key)))]


def values(data: Any) -> list[Any]:
    """Every value of nested data."""
    inner = data.values() if isinstance(data, dict) else data if isinstance(data, list) else ()
    return [data, *(found for value in inner for found in values(value))]


def changed(data: Any, place: tuple[Any, ...], how: str, value: Any) -> Any:
    """A copy with one value replaced, removed, wrapped or joined by another."""
    if not place:
        return (
            value
            if how == "replace"
            else {**data, str(value): value}
            if isinstance(data, dict)
            else data
        )
    data = copy.deepcopy(data)
    holder = data
    for key in place[:-1]:
        holder = holder[key]
    old = holder[place[-1]]
    if how == "remove":
        del holder[place[-1]]
    elif how == "wrap":
        holder[place[-1]] = [old]
    elif how == "key" and isinstance(old, dict):
        old[value if isinstance(value, str | int | float | bool | None) else "x"] = value
    elif how == "copy" and isinstance(holder, list):
        holder.append(old)
    else:
        holder[place[-1]] = value
    return data


@st.composite
def mutated(draw: st.DrawFn, wholes: st.SearchStrategy[Any]) -> Any:
    """Nested data with one to three changes."""
    data = draw(wholes)
    for _ in range(draw(st.integers(1, 3))):
        how = draw(st.sampled_from(["replace", "replace", "remove", "wrap", "key", "copy"]))
        value = draw(st.one_of(ODD, DEEP, st.sampled_from(USUAL)))
        data = changed(data, draw(st.sampled_from(places(data))), how, value)
    return data


WHOLE = [yaml.safe_load(p.read_text()) for p in CONFIGS]
CONFIG = st.sampled_from(WHOLE)
USUAL = [value for one in WHOLE for value in values(one) if not isinstance(value, dict | list)]
CHAT = {"id": "a", "domain": "code", "messages": [{"role": "user", "content": "sum of 1 and 2"}]}
ROWS = [CHAT, {"text": "plain text"}, {"prompt": "text", "answer": "3", "domain": "math"}, {
    "messages": [*CHAT["messages"], {"role": "assistant", "content": "3"}], "id": "b"}]  # fmt: skip
CODE = [
    "```",
    "```python\n",
    "~~~",
    "\n",
    "`",
    "x = 1",
    "(",
    "[" * 9,
    "def f():",
    "\t",
    "\\\n",
    "'''",
    "lambda:",
    "1" * 40,
    "f'{",
    "\0",
    "\r",
]
LATEX = [
    "$",
    "$$",
    "\\(",
    "\\)",
    "\\[",
    "\\]",
    "\\begin{a}",
    "\\end{a}",
    "{",
    "}",
    "\\$",
    "\\",
    "%",
]
JSON = [
    '{"summary": "',
    '"summary"',
    "summary:",
    '", "analysis": "',
    "{",
    "}",
    "[",
    "]",
    '"',
    ",",
    "1",
    "A",
    '{"active": [',
    '{"choices": ["A",',
    "<think>",
    "</think>",
    "```json\n",
    "\\u00",
    "\\n",
    ": ",
    "\\frac",
]


def pieces(known: list[str]) -> st.SearchStrategy[str]:
    """Texts of these pieces and any letters, and long repetitions of them."""
    short = st.lists(st.one_of(st.sampled_from(known), st.text(max_size=5)), max_size=14).map(
        "".join
    )
    unit = st.lists(st.sampled_from(known), min_size=1, max_size=4).map("".join)
    long = st.tuples(short, unit, st.integers(1, 4000), short).map(
        lambda t: t[0] + t[1] * t[2] + t[3]
    )
    return st.one_of(short, long)


YAML = ["\t", "- ", ": ", "&a", "*a", "!!python/name:os.system", "? ", "|\n", "---\n", "<<: "]


@st.composite
def edited(draw: st.DrawFn) -> str:
    """The text of a shipped config with pieces put in or left out."""
    text = draw(st.sampled_from(CONFIGS)).read_text()
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(text)))
        marks = st.sampled_from([*WORDS, *YAML])
        text = text[:start] + draw(marks) + text[start + draw(st.integers(0, 8)) :]
    return text
