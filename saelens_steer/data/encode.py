"""Encode prompts and their answers as token ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from transformers import PreTrainedTokenizerBase

from saelens_steer.data.chat import render, token_ids
from saelens_steer.data.prompts import Prompt
from saelens_steer.data.special_tokens import (
    SpecialTokens,
    TextStart,
    bos_id,
    say_start,
    special_ids,
    text_start,
)
from saelens_steer.errors import InputError


@dataclass(frozen=True)
class Encoded:
    """A prompt's token ids.

    Prompt and answer are tokenized separately, so the prompt has the same ids with and without an
    answer, and the answer starts where the model's own would.
    """

    prompt: Prompt
    head: tuple[int, ...]
    """The prompt, up to and including the assistant start."""
    answer: tuple[int, ...]
    """Empty if the prompt has no answer."""
    added: int = 0
    """Length of a BOS before the text that the tokenizer itself would not add: never steered."""

    @property
    def ids(self) -> tuple[int, ...]:
        """Head and answer."""
        return self.head + self.answer


def encode_prompts(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt | str],
    *,
    system: str | None = None,
    chat: bool = True,
    special_tokens: SpecialTokens = None,
) -> list[Encoded]:
    """Encode each prompt in the chat template, or as plain text if `chat=False`.

    `special_tokens` applies to plain text: None follows the tokenizer, a bool adds BOS or not, an
    SAE means as it was trained.
    """
    if not chat:
        start = text_start(tokenizer, special_tokens)
        found = [_plain(tokenizer, prompt, start) for prompt in as_prompts(prompts)]
        if found:
            say_start(tokenizer, start)
        return found
    return [
        Encoded(
            prompt,
            tuple(token_ids(tokenizer, render(tokenizer, prompt, system=system))),
            _answer(tokenizer, prompt),
        )
        for prompt in as_prompts(prompts)
    ]


def _plain(tokenizer: PreTrainedTokenizerBase, prompt: Prompt, start: TextStart) -> Encoded:
    ids = token_ids(tokenizer, prompt.text)
    before = start.before(ids, bos_id(tokenizer))
    added = start.added if before else 0
    return Encoded(prompt, (*before, *ids), _answer(tokenizer, prompt), added)


def _answer(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> tuple[int, ...]:
    return tuple(token_ids(tokenizer, prompt.answer)) if prompt.answer else ()


def written_text(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """The text of token ids that a model generated, up to the first special token.

    Trailing tokens that do not survive re-encoding, such as the first bytes of a character cut off
    by the token limit, are dropped: tokenizing the text gives back the ids that were kept.
    """
    special = special_ids(tokenizer)
    kept, text = list(takewhile(lambda i: i not in special, ids)), ""
    while kept and token_ids(tokenizer, text := str(tokenizer.decode(kept))) != kept:
        kept.pop()
    return text if kept else ""


def as_prompts(prompts: Sequence[Prompt | str]) -> list[Prompt]:
    """Prompts, with each plain string turned into one; its id is its number, from 1."""
    if isinstance(prompts, str):
        raise InputError("prompts must be a list of Prompt or of strings, not one string")
    return [
        Prompt(str(number), prompt) if isinstance(prompt, str) else prompt
        for number, prompt in enumerate(prompts, start=1)
    ]
