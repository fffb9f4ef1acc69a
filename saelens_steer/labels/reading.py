"""Reading answers of models that were asked for JSON and may have given something like it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from saelens_steer.labels.labeller import MOST_LETTERS, MOST_WORDS, Failed, Name, writable
from saelens_steer.labels.server import Answer

THOUGHT = re.compile(r"\A.*</think(?:ing)?>|<think(?:ing)?>.*\Z", re.DOTALL | re.IGNORECASE)
"""A model's reasoning: up to its end, whose beginning may stand in the prompt, or cut."""
MOST_OPENINGS = 100
"""So many braces are tried as the beginning of an object."""
BEGINNING = 40
"""Characters shown of an answer that could not be read."""
MOST_ANALYSIS = 4000
"""Characters kept of an analysis."""
LINE = r"^[\s>#*_\"'`-]*{}[\s*_\"'`]*[:：=][\s*_\"'`]*(?P<text>.+?)[\s*_\"'`,]*$"
"""A line such as `**Summary:** …`."""


def read_name(answer: Answer) -> Name:
    """The summary and the analysis. Raises Failed (unreadable) where there is no summary."""
    found = _fields(answer.text, ("summary", "label", "name"), ("analysis", "explanation"))
    summary = " ".join(writable(str(found[0] or "")).split())
    if not re.search(r"\w", summary):
        raise Failed("unreadable", f"no summary in the answer{_why(answer)}")
    words, remark = summary.split(), ""
    if len(words) > MOST_WORDS or len(summary) > MOST_LETTERS:
        size = f"{len(words):,} words" if len(words) > 1 else f"{len(summary):,} letters"
        summary = " ".join(words[:MOST_WORDS])[:MOST_LETTERS] + "…"
        remark = f"a summary of {size} was cut"
    return Name(summary, writable(str(found[1] or "")).strip()[:MOST_ANALYSIS], remark)


def read_numbers(answer: Answer, key: str, most: int) -> list[int]:
    """A list of numbers from 1 to `most` under a key, or else the first list. Raises Failed."""
    for value in _values(answer.text, key):
        if (numbers := _numbers(value)) is not None:
            if all(1 <= number <= most for number in numbers):
                return numbers
            raise Failed("unreadable", f"a number that is not from 1 to {most}")
    raise Failed("unreadable", f"no list of numbers in the answer{_why(answer)}")


def read_letters(answer: Answer, key: str, n: int, letters: str = "AB") -> str:
    """n letters, one for each question, from a list or a text of them. Raises Failed."""
    for value in _values(answer.text, key):
        if (found := _letters(value, letters)) and len(found) == n:
            return found
    raise Failed("unreadable", f"no list of {n} letters in the answer{_why(answer)}")


def _why(answer: Answer) -> str:
    """How the answer begins, and whether it was cut."""
    text = " ".join(answer.text.split())
    cut = ", which was cut by max_answer_tokens" if answer.cut else ""
    return f" {text[:BEGINNING]!r}{'…' * (len(text) > BEGINNING)}{cut}"


def _values(text: str, key: str) -> list[Any]:
    """What stands under a key, wherever that is; then lists that stand alone."""
    found = list(_objects(text))
    under = [data[key] for data in found if isinstance(data, dict) and key in data]
    return under + [data for data in found if isinstance(data, list)]


def _numbers(value: Any) -> list[int] | None:
    """The list as whole numbers; None where it is none."""
    if not isinstance(value, list):
        return None
    whole = [_whole(one) for one in value]
    return None if None in whole else [number for number in whole if number is not None]


def _whole(value: Any) -> int | None:
    """A whole number, also as a text; a fraction or a truth value is none."""
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdecimal():
        return int(value) if len(value) < 9 else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e9:
        return None
    return int(value) if value == int(value) else None


def _letters(value: Any, letters: str) -> str | None:
    parts = re.findall(r"\w+", value) if isinstance(value, str) else value
    if isinstance(value, str) and len(parts) == 1:
        parts = list(parts[0])
    if not isinstance(parts, list):
        return None
    found = [str(one).strip().upper() for one in parts]
    return "".join(found) if all(len(one) == 1 and one in letters for one in found) else None


def _fields(text: str, *names: Sequence[str]) -> list[Any]:
    """For each field, under any of its names, what an object or else a line gives it."""
    for data in _objects(text):
        if isinstance(data, dict):
            known = {str(key).lower(): value for key, value in data.items()}
            found = [next((known[n] for n in own if n in known), None) for own in names]
            if isinstance(found[0], str):
                return found
    plain = _plain(text)
    return [next((line for n in own if (line := _line(plain, n))), None) for own in names]


def _line(text: str, name: str) -> str | None:
    found = re.search(LINE.format(name), text, re.IGNORECASE | re.MULTILINE)
    return found["text"] if found else None


def _plain(text: str) -> str:
    return THOUGHT.sub("", text)


def _objects(text: str) -> Iterator[Any]:
    """JSON objects and lists in a text, wherever they begin; the outermost ones first."""
    plain, end, tried = _plain(text), 0, 0
    decoder = json.JSONDecoder(strict=False)
    for opening in re.finditer(r"[{\[]", plain):
        if opening.start() < end:
            continue
        tried += 1
        if tried > MOST_OPENINGS:
            return
        try:
            data, end = decoder.raw_decode(plain, opening.start())
        except (ValueError, RecursionError):
            continue
        yield data
