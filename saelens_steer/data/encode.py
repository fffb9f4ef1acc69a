"""Prompts as token ids: the templated prompt, and the answer if there is one."""

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
    """One prompt's ids. Prompt and answer are tokenised apart, so the prompt has the same ids
    with and without an answer, and the answer starts where the model's own would."""

    prompt: Prompt
    head: tuple[int, ...]
    """Up to the assistant start, which is its last token."""
    answer: tuple[int, ...]
    """Empty if the prompt has none."""

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
    """The ids of each prompt in the chat template (`chat=False`: of its plain text).

    Plain strings are prompts too, numbered from 1.
    """
    return [
        Encoded(
            prompt,
            tuple(token_ids(tokenizer, render(tokenizer, prompt, system=system, chat=chat))),
            tuple(token_ids(tokenizer, prompt.answer)) if prompt.answer else (),
        )
        for prompt in as_prompts(prompts)
    ]


def written_text(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """The text of ids that a model wrote, up to the first special token.

    It ends before tokens that tokenising the text would not give back, such as the first bytes of
    a character that the limit cut off, so encoding it again gives the tokens that were written.
    """
    special = special_ids(tokenizer)
    kept, text = list(takewhile(lambda i: i not in special, ids)), ""
    while kept and token_ids(tokenizer, text := str(tokenizer.decode(kept))) != kept:
        kept.pop()
    return text if kept else ""


def as_prompts(prompts: Sequence[Prompt | str]) -> list[Prompt]:
    """Prompts; a plain string becomes one, its id its number from 1."""
    if isinstance(prompts, str):
        raise InputError("prompts are a list of Prompt or of strings, not one string")
    return [
        Prompt(str(number), prompt) if isinstance(prompt, str) else prompt
        for number, prompt in enumerate(prompts, start=1)
    ]
