"""What a tokenizer puts before plain text, and the record of it on the tokenizer of a model.

TransformerLens reads tokenizers again with BOS switched on, which from the outside looks like a
tokenizer that was loaded so on purpose. A record tells the two apart; it survives copies.
"""

from __future__ import annotations

from typing import Any

RECORD = "start_of_plain_text"
"""The attribute of a tokenizer that holds the record."""


def measured_start(tokenizer: Any) -> tuple[int, ...]:
    """The ids that the tokenizer puts before plain text."""
    plain = tokenizer("a", add_special_tokens=False, verbose=False)["input_ids"]
    whole = tokenizer("a", verbose=False)["input_ids"]
    n = next((i for i in range(len(whole)) if whole[i : i + len(plain)] == plain), 0)
    return tuple(whole[:n])


def record_start(tokenizer: Any) -> tuple[int, ...]:
    """Measure the start and record that it is meant."""
    setattr(tokenizer, RECORD, start := measured_start(tokenizer))
    return start


def recorded_start(tokenizer: Any) -> tuple[int, ...] | None:
    """The recorded start; None for a tokenizer that `load_model` did not put on a model."""
    return getattr(tokenizer, RECORD, None)
