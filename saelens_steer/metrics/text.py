"""Metrics of completions: distinct words, mentions; the answer without its thoughts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from saelens_steer.metrics.metric import Metric, TextMetric
from saelens_steer.model import UNDEFINED

WORD = re.compile(r"(?<!\S)\S{1,16}(?!\S)|\S{1,4}")
"""A word of up to 16 letters, or a piece of a longer one."""


def distinct_words(text: str) -> float:
    """Share of the words (split at whitespace) that are not repeats; NaN without a word.

    Text pushed too far falls into loops: a value near 0. Words of more than 16 letters count as
    their pieces of 4, so that loops without spaces (a rule of dashes, Chinese) are seen too.
    """
    words = WORD.findall(text)
    return len(set(words)) / len(words) if words else float("nan")


def mentions(text: str, words: Sequence[str]) -> bool:
    """Whether one of the words, as a whole and in any case, is in the text."""
    either = "|".join(map(re.escape, words))
    return re.search(rf"(?<!\w)(?:{either})(?!\w)", text, re.IGNORECASE) is not None


THOUGHT_TAG = re.compile(
    r"<(?P<end>/)?(\w+:)?(think(ing)?|thought|reasoning)>|\[(?P<end_>/)?THINK\]", re.IGNORECASE
)
"""Begins or ends a model's reasoning. The first may be missing, if it is in the prompt, and the
last if the answer was cut."""
_QUOTES = "`\"'«»“”‘’\\\\"
_IN_PROSE = re.compile(
    rf"""(?P<quoted>[{_QUOTES}] \0 [{_QUOTES}])
      | (?:\S[ ]|\() \0 [,;:.?!)](?:\s|\Z)              # … is <think>. (<think>) …
      | [\w,;][ ] \0 (?:[ ][^\W\d_A-Z]|[-'’][a-z])     # the <think> tag, a <think>-tag""",
    re.VERBOSE,
)
"""A tag (`\0`) between quotation marks or backticks, or one that a sentence runs through."""


def thought_tags(text: str) -> Iterator[re.Match[str]]:
    """The tags around thoughts such as `<think>` and `</think>`, without those that are text.

    A tag in quotes is text, and so is one that a sentence runs through, unless it ends a thought
    that is open.
    """
    thinking = False
    for tag in THOUGHT_TAG.finditer(text):
        start, end = tag.span()
        ends = bool(tag["end"] or tag["end_"])
        around = f"{text[max(0, start - 2) : start]}\0{text[end : end + 2]}"
        in_prose = _IN_PROSE.search(around)
        if in_prose and (in_prose["quoted"] or not (ends and thinking)):
            continue
        thinking = not ends
        yield tag


def answer_of(text: str) -> str:
    """The text without thoughts, which stand between tags such as `<think>` and `</think>`.

    A closing tag alone ends a thought that the prompt opened; an opening tag alone begins a thought
    that the token limit cut.
    """
    kept, start, thinking = [], 0, False
    for tag in thought_tags(text):
        if tag["end"] or tag["end_"]:
            if not thinking:
                kept.clear()
            start, thinking = tag.end(), False
        elif not thinking:
            kept.append(text[start : tag.start()])
            thinking = True
    return "".join(kept if thinking else [*kept, text[start:]])


def completion_of(tokenizer: Any, ids: Sequence[int], stops: Sequence[int]) -> dict[str, Any]:
    """completion (up to its stop token, special tokens left out), truncated, n_tokens.

    truncated is None if the text ends because the model's numbers overflowed (UNDEFINED).
    """
    end = next((i for i, token in enumerate(ids) if token in stops or token == UNDEFINED), None)
    kept = ids[:end]
    text = tokenizer.decode(kept, skip_special_tokens=True)
    lost = end is not None and ids[end] == UNDEFINED
    return {"completion": text, "truncated": None if lost else end is None, "n_tokens": len(kept)}


def text_values(text: str, truncated: bool | None, metrics: Sequence[Metric]) -> dict[str, float]:
    """The columns of the text metrics among these; NaN for a text that overflowed."""
    judging = [m for m in metrics if isinstance(m, TextMetric)]
    if truncated is None:
        return {name: float("nan") for m in judging for name in m.columns}
    found = [m.fn(text, truncated) for m in judging]
    return {name: value for columns in found for name, value in columns.items()}


def read_completion(
    tokenizer: Any, ids: Sequence[int], stops: Sequence[int], metrics: Sequence[Metric]
) -> dict[str, Any]:
    """completion (up to its stop token, special tokens left out), truncated, n_tokens, metrics."""
    row = completion_of(tokenizer, ids, stops)
    return row | text_values(row["completion"], row["truncated"], metrics)
