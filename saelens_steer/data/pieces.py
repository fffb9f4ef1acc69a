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
    pieces, waiting = list[str](), 0
    for number, text in enumerate(texts, start=1):
        waiting += 1
        if text.endswith(UNKNOWN) and waiting < LONGEST and number < len(ids):
            pieces.append("")
        else:
            pieces.append(text[len(known) :])
            known, waiting = text, 0
    return pieces
