"""Metrics of completions: distinct words, mentions; the answer without its thoughts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from saelens_steer.metrics.metric import Metric, TextMetric


def distinct_words(text: str) -> float:
    """Share of the words (split at whitespace) that are not repeats; NaN without a word.

    Text pushed too far falls into loops: a value near 0.
    """
    words = text.split()
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
_QUOTES = "`\"'«»“”‘’\\"


def answer_of(text: str) -> str:
    """The text without thoughts, which stand between tags such as `<think>` and `</think>`.

    A closing tag alone ends a thought that the prompt opened; an opening tag alone begins a thought
    that the token limit cut. Tags between quotation marks or backticks are text.
    """
    kept, start, thinking = [], 0, False
    for tag in THOUGHT_TAG.finditer(text):
        around = text[max(0, tag.start() - 1) : tag.start()], text[tag.end() : tag.end() + 1]
        if all(around) and around[0] in _QUOTES and around[1] in _QUOTES:
            continue
        if tag["end"] or tag["end_"]:
            if not thinking:
                kept.clear()
            start, thinking = tag.end(), False
        elif not thinking:
            kept.append(text[start : tag.start()])
            thinking = True
    return "".join(kept if thinking else [*kept, text[start:]])


def completion_of(tokenizer: Any, ids: Sequence[int], stops: Sequence[int]) -> dict[str, Any]:
    """completion (up to its stop token, special tokens left out), truncated, n_tokens."""
    end = next((i for i, token in enumerate(ids) if token in stops), None)
    kept = ids[:end]
    text = tokenizer.decode(kept, skip_special_tokens=True)
    return {"completion": text, "truncated": end is None, "n_tokens": len(kept)}


def text_values(text: str, truncated: bool, metrics: Sequence[Metric]) -> dict[str, float]:
    """The columns of the text metrics among these."""
    found = [m.fn(text, truncated) for m in metrics if isinstance(m, TextMetric)]
    return {name: value for columns in found for name, value in columns.items()}


def read_completion(
    tokenizer: Any, ids: Sequence[int], stops: Sequence[int], metrics: Sequence[Metric]
) -> dict[str, Any]:
    """completion (up to its stop token, special tokens left out), truncated, n_tokens, metrics."""
    row = completion_of(tokenizer, ids, stops)
    return row | text_values(row["completion"], row["truncated"], metrics)
