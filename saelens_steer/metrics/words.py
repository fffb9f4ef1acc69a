"""The words of a completion: whether they go round in circles, whether some are among them."""

from __future__ import annotations

import re
from collections.abc import Sequence


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
