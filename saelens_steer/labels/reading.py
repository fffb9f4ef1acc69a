"""Read the answers of language models that were asked for a JSON object.

JSON comes first: a tag such as `<think>` inside a JSON string is text. Then the tags outside it
mark the model's reasoning, whose objects are drafts. The last object with the key is the answer.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from saelens_steer.labels.labeller import MOST_LETTERS, MOST_WORDS, LabelError, Name, writable
from saelens_steer.labels.server import Answer
from saelens_steer.metrics import thought_tags

SUMMARY, ANALYSIS = ("summary", "label", "name"), ("analysis", "explanation")
"""Keys under which models give them."""
OPENING = re.compile(r'\{(?=\s*["}])|\[(?=\s*[\]\[{"\d-])')
"""A brace or bracket that may begin a JSON value; most of those in LaTeX and code may not."""
MOST_OPENINGS = 2000
"""Openings tried in one answer."""
MOST_PASSES = 20
"""How often the openings tried may go through an answer, all together."""
FENCE = re.compile(r"\s*(```\w*)?\s*")
"""White space, and the fence of a code block."""
INTRODUCED = re.compile(r"(?:^\W*|(?:[:：=>]|THINK\]|\b(?:is|are)\s)[\s*_`]*)\Z", re.IGNORECASE)
LINE_END = re.compile(r"[ \t*_`.]*(?:\n|[(–—]|\Z)")
"""Around a bare list that is an answer."""
FLAGS = re.IGNORECASE | re.MULTILINE
MOST_BEFORE = 200
"""Characters of its line before a list that are read."""
BEGINNING = 40
"""Characters of an unreadable answer that an error shows."""
MOST_ANALYSIS = 4000
"""Characters of an analysis that are kept."""
LINE = r"^(?:[^\S\n]|[>#*_\"'`-])*+(?:{})[\s*_\"'`]*+[:：=][\s*_\"'`]*+(?P<text>.+)"
"""Matches a line such as `**Summary:** …`."""
AFTER_LINE = " \t\r\f\v\xa0*_\"'`,"
"""Characters that are left out at the end of such a line."""
FIELD = r'"(?:{})"\s*:\s*(?P<text>"(?:[^"\\]|\\.)*")\s*(?:[,}}]|\Z)'
"""Matches a whole string of a JSON object that is cut or broken elsewhere."""
COMMANDS = (
    "abla|atural|e|earrow|eg|eq|eqq|eqslant|ewcommand|ewcounter|ewenvironment|ewline|ewpage"
    "|ewtheorem|geq|geqq|geqslant|gtr|leftarrow|Leftarrow|leftrightarrow|Leftrightarrow|leq|leqq"
    "|leqslant|obreak|ocite|ode|oindent|olimits|olinebreak|onumber|opagebreak|ormalfont|ormalsize"
    "|ot|otag|otin|otni|prec|preceq|rightarrow|Rightarrow|shortmid|shortparallel|sim|subseteq"
    "|subseteqq|succ|succeq|supseteq|supseteqq|triangleleft|trianglelefteq|triangleright"
    "|trianglerighteq|u|um|vDash|vdash|VDash|Vdash|warrow"
)
"""LaTeX commands that begin with n, without it. Before any other word, `\\n` is a line break."""
ESCAPE = r'["\\/]|u[0-9a-fA-F]{4}'
"""What may follow a backslash in JSON and cannot begin a LaTeX command."""
LINES = rf"n(?!(?:{COMMANDS})(?![A-Za-z]|\.\w))|[rt](?![A-Za-z])"
"""What may follow it in a text of several lines: a line break or a tab that begins no command."""


def read_name(answer: Answer) -> Name:
    """The summary and the analysis. Raises LabelError if there is no summary.

    A name is one line, so `\\n` and `\\t` in a summary are the characters it names, and a backslash
    that JSON wants doubled is a backslash. In an analysis they are line breaks and tabs, unless
    they begin a LaTeX command.
    """
    summary = _text(_named(answer, ESCAPE), SUMMARY, r"[\x00-\x1f\x7f]")
    analysis = _text(_named(answer, f"{ESCAPE}|{LINES}"), ANALYSIS, r"[\x00-\x08\x0b-\x1f\x7f]")
    words, remarks = summary.split(), ["read from the model's reasoning"] * answer.thought
    if not re.search(r"\w", summary):
        raise LabelError("unreadable", f"no summary in the answer{_excerpt(answer)}")
    summary = " ".join(words)
    if len(words) > MOST_WORDS or len(summary) > MOST_LETTERS:
        size = f"{len(words):,} words" if len(words) > 1 else f"{len(summary):,} characters"
        summary = " ".join(words[:MOST_WORDS])[:MOST_LETTERS] + "…"
        remarks.append(f"a summary of {size} was cut")
    return Name(summary, analysis.strip()[:MOST_ANALYSIS], "; ".join(remarks))


def read_numbers(answer: Answer, most: int) -> list[int]:
    """The numbers under "active", or else of a bare list. Raises LabelError.

    Every number must be from 1 to `most`.
    """
    value = _under(answer, "active")
    if isinstance(value, list) and None not in (whole := [_whole(one) for one in value]):
        numbers = [number for number in whole if number is not None]
        if all(1 <= number <= most for number in numbers):
            return numbers
        raise LabelError("unreadable", f"the answer has a number outside 1 to {most}")
    raise LabelError("unreadable", f"no list of numbers in the answer{_excerpt(answer)}")


def read_letters(answer: Answer, n: int) -> str:
    """The n letters, A or B, under "choices", or else of a bare list. Raises LabelError."""
    value = _under(answer, "choices")
    letters = re.findall(r"\w+", value) if isinstance(value, str) else value
    if isinstance(value, str) and len(letters) == 1:
        letters = list(letters[0])
    if isinstance(letters, list) and len(letters) == n:
        found = [str(one).strip().upper() for one in letters]
        if set(found) <= {"A", "B"}:
            return "".join(found)
    raise LabelError("unreadable", f"no list of {n} letters A or B in the answer{_excerpt(answer)}")


def _excerpt(answer: Answer) -> str:
    """The beginning of an answer, and a note if it was cut."""
    text = " ".join(answer.text.split())
    cut = ", which was cut by max_answer_tokens" if answer.cut else ""
    return f" {text[:BEGINNING]!r}{'…' * (len(text) > BEGINNING)}{cut}"


def _whole(value: Any) -> int | None:
    """A whole number, possibly in a string; None for a fraction or a boolean."""
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdecimal():
        return int(value) if len(value) < 9 else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e9:
        return None
    return int(value) if value == int(value) else None


def _text(fields: dict[str, Any], names: Sequence[str], controls: str) -> str:
    """The first of these fields as text, with a space for each of these control characters."""
    value = next((fields[name] for name in names if name in fields), None)
    return re.sub(controls, " ", writable(value)) if isinstance(value, str) else ""


def _under(answer: Answer, key: str) -> Any:
    """The value of a key in the final object that has it, or else the last list that stands out."""
    values, _ = _final(answer, (key,), ESCAPE)
    if objects := [fields for value in values if (fields := _fields(value.data, (key,)))]:
        return objects[-1][key]
    lists = [value.data for value in values if value.stands_out and isinstance(value.data, list)]
    return lists[-1] if lists else None


def _named(answer: Answer, escapes: str) -> dict[str, Any]:
    """The fields of the final object with a summary, or else of lines such as `Summary: …`."""
    values, rest = _final(answer, SUMMARY, escapes)
    objects = [fields for value in values if (fields := _fields(value.data, SUMMARY))]
    if broken := _matched(FIELD, rest):
        return {key: json.loads(text, strict=False) for key, text in broken.items()}
    if objects:
        return objects[-1]
    lines = {key: text.rstrip(AFTER_LINE) for key, text in _matched(LINE, rest).items()}
    return {key: text.replace("\\\\", "\\") for key, text in lines.items()}


def _matched(pattern: str, text: str) -> dict[str, str]:
    """The last match for the summary, and for the analysis if any; empty without a summary."""
    found = dict[str, str]()
    for names in (SUMMARY, ANALYSIS):
        for match in re.finditer(pattern.format("|".join(names)), text, FLAGS):
            found[names[0]] = match["text"]
    return found if SUMMARY[0] in found else {}


def _fields(data: Any, keys: Sequence[str], depth: int = 4) -> dict[str, Any]:
    """The outermost object that has any of these keys, with its keys in lower case."""
    named = data if isinstance(data, dict) else {}
    known = {str(key).lower(): value for key, value in named.items()}
    if any(key in known for key in keys):
        return known
    inner = [*known.values()] if known else data
    containers = [one for one in inner if depth and isinstance(one, dict | list)]
    return next(filter(None, (_fields(one, keys, depth - 1) for one in containers)), {})


@dataclass(frozen=True)
class JsonValue:
    """A JSON object or list, and where it stands in a text."""

    data: Any
    start: int
    end: int
    stands_out: bool
    """It ends its line, and begins it or follows a colon, `=`, `is` or `are`: no citation."""


def _final(answer: Answer, keys: Sequence[str], escapes: str) -> tuple[list[JsonValue], str]:
    """The outermost JSON values that are not drafts, and the text after the last with these keys.

    A draft is followed by the end of the reasoning, or stands in reasoning without an end. Of an
    answer that was cut, only values at its beginning or end count: more was to follow the others.
    """
    text = re.sub(rf"(\\(?:{escapes}))|\\", lambda m: m[1] or "\\\\", answer.text)
    values = list(_values(text))
    tags = [
        tag
        for tag in thought_tags(text)
        if not any(value.start <= tag.start() < value.end for value in values)
    ]
    start = max((tag.end() for tag in tags if tag["end"] or tag["end_"]), default=0)
    stop = min((tag.start() for tag in tags if tag.start() >= start), default=len(text))
    inside = [value for value in values if start <= value.start < stop]
    first = [v for v in values if _blank(text[start if answer.cut else 0 : v.start])]
    last = [v for v in values if v.start >= start and _blank(text[v.end :])]
    if answer.cut:
        kept = [value for value in inside if value in first or value in last]
    else:  # with a tag that the answer mentions, or reasoning that was not ended
        kept = inside or first or last
    with_keys = [v.end for v in inside if _fields(v.data, keys)]
    return kept, text[max([start, *with_keys]) : stop]


def _blank(text: str) -> bool:
    return FENCE.fullmatch(text) is not None


def _values(text: str) -> Iterator[JsonValue]:
    """The outermost JSON objects and lists in a text."""
    decoder, end, passed = json.JSONDecoder(strict=False), 0, 0
    for opening in itertools.islice(OPENING.finditer(text), MOST_OPENINGS):
        if passed > MOST_PASSES * len(text):
            return
        if opening.start() >= end:
            try:
                data, end = decoder.raw_decode(text, opening.start())
            except (ValueError, RecursionError) as error:
                passed += getattr(error, "pos", len(text)) - opening.start()
                continue
            start = opening.start()
            line = text[max(text.rfind("\n", 0, start) + 1, start - MOST_BEFORE) : start]
            alone = INTRODUCED.search(line) and LINE_END.match(text, end)
            yield JsonValue(data, start, end, alone is not None)
