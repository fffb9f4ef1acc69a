"""A seeded grammar of short chat examples in five families, which the tiny model is trained on.

The same seed gives the same examples on every machine, and a prompt belongs to
exactly one split, by a hash of its text.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

from saelens_steer.errors import InputError
from scripts.tiny.code_and_math import draw_code, draw_math
from scripts.tiny.mixed import draw_mixed
from scripts.tiny.prose_and_transport import draw_prose, draw_transport

FAMILIES = ("code", "math", "mixed", "prose", "transport")
SPLITS = ("train", "heldout", "select")

Draw = Callable[[random.Random], tuple[str, str]]
_DRAW: dict[str, Draw] = {
    "code": draw_code,
    "math": draw_math,
    "mixed": draw_mixed,
    "prose": draw_prose,
    "transport": draw_transport,
}


@dataclass(frozen=True)
class Example:
    """A prompt and its answer, without the chat template."""

    family: str
    prompt: str
    answer: str


def split_of(prompt: str) -> str:
    """The split that a prompt belongs to: 80 % train, 10 % heldout, 10 % select."""
    bucket = hashlib.sha256(prompt.encode()).digest()[0] % 10
    return {0: "heldout", 1: "select"}.get(bucket, "train")


def stream(family: str, seed: int, split: str = "train") -> Iterator[Example]:
    """An endless stream of examples of one family; prompts may repeat."""
    _check("family", family, FAMILIES)
    _check("split", split, SPLITS)
    rng = random.Random(f"{family}/{split}/{seed}")
    while True:
        prompt, answer = _DRAW[family](rng)
        if split_of(prompt) == split:
            yield Example(family, prompt, answer)


def examples(family: str, n: int, seed: int, split: str = "train") -> list[Example]:
    """`n` examples; outside the training split, no prompt repeats."""
    source = stream(family, seed, split)
    return list(islice(source if split == "train" else _distinct(source), n))


def _distinct(source: Iterator[Example], patience: int = 2000) -> Iterator[Example]:
    """Each prompt once; InputError after `patience` repeats in a row."""
    seen: set[str] = set()
    repeats = 0
    for example in source:
        if example.prompt not in seen:
            seen.add(example.prompt)
            repeats = 0
            yield example
        elif (repeats := repeats + 1) > patience:
            raise InputError(
                f"The grammar has only {len(seen)} distinct prompts here; ask for fewer."
            )


def _check(what: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise InputError(f"There is no {what} {value!r}; choose one of {', '.join(allowed)}.")
