"""Encode prompts and their answers as token ids."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import takewhile
from typing import Literal

from transformers import PreTrainedTokenizerBase

from saelens_steer.config import TemplateSpec
from saelens_steer.data.chat import openings, render, todays_date, token_ids, writes_dates
from saelens_steer.data.prompt import Prompt, PromptLike, listed_prompts
from saelens_steer.data.special_tokens import (
    SpecialTokens,
    TextStart,
    bos_id,
    say_start,
    special_ids,
    template_marks,
    text_start,
)
from saelens_steer.errors import InputError
from saelens_steer.no_tokenizer import check_tokenizer
from saelens_steer.progress import say_once

PromptKind = Literal["chat", "plain", "templated", "ids"]
"""In the chat template; plain text; text that already contains the template; token ids."""
AS_IT_IS: dict[str, tuple[str, str]] = {
    "plain": ("plain text", "set chat=True (prompts.chat: true), or leave the option out"),
    "templated": ("text that already contains the template", "leave the option out"),
    "ids": ("a list of token ids", "leave the option out"),
}
"""Kind → what it is called, and what to write in place of an option of the template."""


@dataclass(frozen=True)
class Encoded:
    """A prompt's token ids.

    Prompt and answer are tokenized separately, so the prompt has the same ids with and without an
    answer, and the answer starts where the model's own would.
    """

    prompt: Prompt
    head: tuple[int, ...]
    """The prompt, in the chat template up to and including the assistant start."""
    answer: tuple[int, ...]
    """Empty if the prompt has no answer."""
    kind: PromptKind
    added: int = 0
    """Length of a BOS before the text that the tokenizer itself would not add: never steered."""
    at_start: bool = False
    """Whether the head ends where the assistant's answer begins."""

    @property
    def ids(self) -> tuple[int, ...]:
        """Head and answer."""
        return self.head + self.answer


def as_prompts(tokenizer: PreTrainedTokenizerBase, prompts: Iterable[PromptLike]) -> list[Prompt]:
    """`listed_prompts`, with the text of token ids."""
    listed = enumerate(listed_prompts(prompts))
    return [_shown(tokenizer, prompt, f"prompts[{i}]") for i, prompt in listed]


def _shown(tokenizer: PreTrainedTokenizerBase, prompt: Prompt, where: str) -> Prompt:
    """The prompt, with the text of its token ids. InputError if it has another text."""
    if prompt.ids is None:
        check_tokenizer(tokenizer, f"{where}, a text,")
        return prompt
    text = str(tokenizer.decode(list(prompt.ids)))
    if prompt.text not in ("", text):
        raise InputError(f"prompt {prompt.id!r} has both text and ids: give one of the two")
    return replace(prompt, text=text)


def encode_prompts(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[PromptLike],
    template: TemplateSpec = TemplateSpec(),  # noqa: B008
    special_tokens: SpecialTokens = None,
) -> list[Encoded]:
    """Encode conversations in the chat template, plain text as it is unless `template.chat`.

    Token ids, and text that already contains the template, are read as they are. `special_tokens`
    applies to plain text: None follows the tokenizer, a bool adds BOS or not, an SAE means as it
    was trained. InputError for what the template cannot write, and for options that a prompt cannot
    follow.
    """
    reader = PromptReader(tokenizer, template, special_tokens)
    return [reader.encoded(prompt) for prompt in as_prompts(tokenizer, prompts)]


@dataclass(frozen=True)
class PromptReader:
    """What a model reads of prompts, with its tokenizer and a template."""

    tokenizer: PreTrainedTokenizerBase
    template: TemplateSpec
    special_tokens: SpecialTokens = None

    def encoded(self, prompt: Prompt) -> Encoded:
        """The prompt as token ids. InputError and notes as in `encode_prompts`."""
        kind, tokenizer = self.kind(prompt), self.tokenizer
        self._check(prompt, kind)
        text = self._text(prompt, kind)
        ids = token_ids(tokenizer, text) if prompt.ids is None else list(prompt.ids)
        before: tuple[int, ...] = ()
        if kind in ("plain", "templated"):
            before = self._start.before(ids, bos_id(tokenizer))
        if kind == "plain":
            say_start(tokenizer, self._start)
        return Encoded(
            prompt,
            (*before, *ids),
            tuple(token_ids(tokenizer, prompt.answer)) if prompt.answer else (),
            kind,
            self._start.added if before else 0,
            self._at_start(prompt, kind, ids),
        )

    def kind(self, prompt: Prompt) -> PromptKind:
        """How the prompt is read."""
        if prompt.ids is not None:
            return "ids"
        if prompt.messages is not None:
            return "chat"
        marked = not self._marks.isdisjoint(token_ids(self.tokenizer, prompt.text))
        if marked or prompt.text.endswith(self._openings):
            return "templated"
        return "chat" if self.template.chat else "plain"

    def text(self, prompt: Prompt) -> str:
        """The text that the model reads, without the BOS that plain text may get."""
        return self._text(prompt, self.kind(prompt))

    def _text(self, prompt: Prompt, kind: PromptKind) -> str:
        return render(self.tokenizer, prompt, self.template) if kind == "chat" else prompt.text

    def _check(self, prompt: Prompt, kind: PromptKind) -> None:
        """InputError for options that the prompt cannot follow; says once what may surprise."""
        if kind == "chat":
            if self.template.chat is False:
                raise InputError(
                    f"prompt {prompt.id!r} is a conversation, which cannot be read without the "
                    "chat template: leave out chat=False (prompts.chat: false), or give its text"
                )
            if prompt.answer and not self.template.add_generation_prompt:
                raise InputError(
                    f"prompt {prompt.id!r} has an answer, but add_generation_prompt=False leaves "
                    "no place for it: remove one of the two, or make the answer the last turn"
                )
            return
        if given := self.template.given:
            what, instead = AS_IT_IS[kind]
            raise InputError(
                f"{given[0]} applies to the chat template, but prompt {prompt.id!r} is {what}, "
                f"which is read as it is: {instead}"
            )
        if kind == "templated" and self.template.chat:
            say_once(
                self.tokenizer, "Text that already contains the chat template is not wrapped again."
            )
        if kind == "plain" and self.template.chat is None and self.tokenizer.chat_template:
            say_once(
                self.tokenizer,
                "Plain text is read as it is, although the tokenizer has a chat template. Give "
                "messages or chat=True (prompts.chat: true) to use the template, or chat=False "
                "(prompts.chat: false) to silence this note.",
            )

    def _at_start(self, prompt: Prompt, kind: PromptKind, ids: Sequence[int]) -> bool:
        if kind == "plain":
            return False
        if kind == "chat":
            return self.template.add_generation_prompt and prompt.content[-1][0] != "assistant"
        if prompt.ids is None:
            return prompt.text.endswith(self._openings)
        ends = [token_ids(self.tokenizer, opening) for opening in self._openings]
        return any(list(ids[-len(end) :]) == end for end in ends)

    @cached_property
    def _start(self) -> TextStart:
        return text_start(self.tokenizer, self.special_tokens)

    @cached_property
    def _marks(self) -> frozenset[int]:
        return template_marks(self.tokenizer)

    @cached_property
    def _openings(self) -> tuple[str, ...]:
        return openings(self.tokenizer, self.template)


def check_ids(encoded: Iterable[Encoded], d_vocab: int) -> None:
    """Raise InputError for a prompt with a token that the model's embedding lacks."""
    for one in encoded:
        if (beyond := max(one.ids, default=0)) >= d_vocab:
            text = "" if one.kind == "ids" else ": remove its token from the text"
            raise InputError(
                f"prompt {one.prompt.id!r} holds the token id {beyond}, but the model's embedding "
                f"has only ids 0 to {d_vocab - 1}{text}"
            )


def start_of(
    tokenizer: PreTrainedTokenizerBase,
    encoded: Sequence[Encoded],
    special_tokens: SpecialTokens = None,
) -> TextStart | None:
    """The special tokens before those of the prompts that are plain text; None if none is."""
    if not any(e.kind == "plain" for e in encoded):
        return None
    return text_start(tokenizer, special_tokens)


def any_plain(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt], template: TemplateSpec
) -> bool:
    """Whether a prompt is read as plain text, which begins as `special_tokens` decides."""
    reader = PromptReader(tokenizer, template)
    return any(reader.kind(prompt) == "plain" for prompt in prompts)


def written_date(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt], template: TemplateSpec
) -> str | None:
    """Today's date if the chat template writes it into a prompt, so that prompts change daily."""
    if not writes_dates(tokenizer):
        return None
    reader = PromptReader(tokenizer, template)
    chats = (prompt for prompt in prompts if reader.kind(prompt) == "chat")
    dates = (todays_date(tokenizer, one, reader.text(one), template) for one in chats)
    return next((date for date in dates if date), None)


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
