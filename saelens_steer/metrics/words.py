"""Whether a completion goes round in circles."""

from __future__ import annotations


def distinct_words(text: str) -> float:
    """Share of the words (split at whitespace) that are not repeats; NaN without a word.

    Text pushed too far falls into loops: a value near 0.
    """
    words = text.split()
    return len(set(words)) / len(words) if words else float("nan")
