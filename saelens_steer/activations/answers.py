"""Answers that the model itself writes, for prompts that come without."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from saelens_steer.data import Prompt, encode_prompts, pad_left, written_text
from saelens_steer.model import generate
from saelens_steer.progress import Note, unnoted


def with_answers(
    model: Any,
    prompts: Sequence[Prompt],
    max_new_tokens: int,
    *,
    system: str | None = None,
    chat: bool = True,
    batch_size: int = 32,
    note: Note = unnoted,
) -> list[Prompt]:
    """The prompts, those without an answer given the model's own greedy one.

    An answer ends early where its text would not be tokenised as the model wrote it
    (`written_text`), so that activations are of the model's own tokens. Calls `note` with the
    number of answers just written.
    """
    open_ones = [p for p in prompts if not p.answer]
    encoded = encode_prompts(model.tokenizer, open_ones, system=system, chat=chat)
    written: list[str] = []
    for start in range(0, len(encoded), batch_size):
        heads = [e.head for e in encoded[start : start + batch_size]]
        tokens, mask = pad_left(heads, model.tokenizer, model.cfg.device)
        new = generate(model, tokens, mask, max_new_tokens)
        written += [written_text(model.tokenizer, row) for row in new.tolist()]
        note(len(new))
    answers = iter(written)
    return [p if p.answer else replace(p, answer=next(answers)) for p in prompts]
