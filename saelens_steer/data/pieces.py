"""The text of each token where it stands, so that the pieces put together are the whole text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from saelens_steer.data.token_sets import UNKNOWN, batch_decoder

LONGEST = 4
"""Bytes of the longest character, so its pieces are at most so many tokens."""


def token_pieces(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """The text that each token adds to those before it.

    A character that is split over several byte-level tokens stands whole on its last one, and the
    others are empty. Bytes that make no character are shown as U+FFFD.
    """
    anchor = list(tokenizer("a", add_special_tokens=False)["input_ids"])
    grown = [anchor + list(ids[:end]) for end in range(len(ids) + 1)]
    known, *texts = batch_decoder(tokenizer)(grown)
    whole = texts[-1][len(known) :] if texts else ""
    found = _added(known, texts, LONGEST)
    # a text may hold U+FFFD itself, before a character that is split: then no limit
    return found if "".join(found) == whole else _added(known, texts, len(texts) + 1)


def _added(known: str, texts: Sequence[str], longest: int) -> list[str]:
    """What each text adds to the one before; nothing yet while it ends within a character."""
    pieces, waiting = list[str](), 0
    for number, text in enumerate(texts, start=1):
        waiting += 1
        if text.endswith(UNKNOWN) and waiting < longest and number < len(texts):
            pieces.append("")
        else:
            pieces.append(text[len(known) :])
            known, waiting = text, 0
    return pieces
