"""Encode prompts and their answers as token ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from transformers import PreTrainedTokenizerBase

from saelens_steer.data.chat import render, token_ids
from saelens_steer.data.prompts import Prompt
from saelens_steer.data.token_sets import special_ids
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
) -> list[Encoded]:
    """Encode each prompt in the chat template, or as plain text if `chat=False`."""
    return [
        Encoded(
            prompt,
            tuple(token_ids(tokenizer, render(tokenizer, prompt, system=system, chat=chat))),
            tuple(token_ids(tokenizer, prompt.answer)) if prompt.answer else (),
        )
        for prompt in as_prompts(prompts)
    ]


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
