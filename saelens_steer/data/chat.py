"""From prompts to token ids: the chat template, left padding, and where an answer begins."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jinja2.exceptions import TemplateError
from transformers import PreTrainedTokenizerBase

from saelens_steer.data.prompts import Prompt
from saelens_steer.errors import InputError
from saelens_steer.tensors import Mask, Tokens


@dataclass(frozen=True)
class Batch:
    """Left-padded prompts; `answer_start` is the position of each row's first answer token."""

    tokens: Tokens
    mask: Mask
    answer_start: tuple[int, ...] | None = None
    """None when the answers were left out."""
    prompts: tuple[Prompt, ...] = ()


def render(
    tokenizer: PreTrainedTokenizerBase,
    prompt: Prompt,
    *,
    system: str | None = None,
    chat: bool = True,
    with_answer: bool = False,
) -> str:
    """The text the model sees: the chat template up to the assistant's first token.

    `chat=False` gives the prompt's text as it stands, after the BOS token if the tokenizer puts
    one there by itself. `with_answer` appends the prompt's answer and no closing token.
    Raises InputError for a missing chat template, a refused system message or a missing answer.
    """
    text = _templated(tokenizer, prompt, system) if chat else _bos(tokenizer) + prompt.text
    return text + _answer(prompt) if with_answer else text


def token_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Ids of rendered text: a template writes its own special tokens, so none are added."""
    return tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]


def tokenize(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], device: str | torch.device = "cpu"
) -> tuple[Tokens, Mask]:
    """Rendered texts, left-padded to the longest: tokens and mask [batch, pos]."""
    return pad_left([token_ids(tokenizer, text) for text in texts], tokenizer, device)


def pad_left(
    rows: Sequence[Sequence[int]],
    tokenizer: PreTrainedTokenizerBase,
    device: str | torch.device = "cpu",
) -> tuple[Tokens, Mask]:
    """Rows of ids padded on the left, whatever side the tokenizer prefers: tokens and mask.

    Padding is the tokenizer's padding id, else its EOS id, else 0. Raises InputError when there
    is no row or a row is empty.
    """
    if not rows or not all(rows):
        raise InputError("each text must have at least one token, and there must be a text")
    width = max(map(len, rows))
    tokens = torch.full((len(rows), width), _pad_id(tokenizer), dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for i, row in enumerate(rows):
        tokens[i, width - len(row) :] = torch.tensor(row)
        mask[i, width - len(row) :] = True
    return tokens.to(device), mask.to(device)


def token_batches(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    batch_size: int = 32,
    *,
    system: str | None = None,
    chat: bool = True,
    with_answer: bool = False,
    device: str | torch.device = "cpu",
) -> Iterator[Batch]:
    """Batches of rendered prompts in the order given, left-padded each to its own longest.

    With answers, prompt and answer are tokenised apart and their ids concatenated. So the prompt
    has the same ids with and without an answer, and the first answer token stands exactly where
    the model's own first token would.
    """
    for start in range(0, len(prompts), batch_size):
        chosen = tuple(prompts[start : start + batch_size])
        heads = [
            token_ids(tokenizer, render(tokenizer, prompt, system=system, chat=chat))
            for prompt in chosen
        ]
        tails = [token_ids(tokenizer, _answer(p)) if with_answer else [] for p in chosen]
        rows = [head + tail for head, tail in zip(heads, tails, strict=True)]
        tokens, mask = pad_left(rows, tokenizer, device)
        starts = tuple(tokens.shape[1] - len(tail) for tail in tails) if with_answer else None
        yield Batch(tokens, mask, starts, chosen)


def answer_span(batch: Batch) -> Mask:
    """True at the tokens of each row's answer: all that follow the assistant start [batch, pos].

    The assistant start itself, the last prompt token, is not in it. All False without answers.
    """
    if batch.answer_start is None:
        return torch.zeros_like(batch.mask)
    starts = torch.tensor(batch.answer_start, device=batch.mask.device)
    positions = torch.arange(batch.mask.shape[1], device=batch.mask.device)
    return positions >= starts[:, None]


def generation_prompt(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids that the chat template puts before an answer; empty where there is no template."""
    if not tokenizer.chat_template:
        return []
    messages = [{"role": "user", "content": "x"}]
    closed, opened = (_apply(tokenizer, messages, generate) for generate in (False, True))
    return token_ids(tokenizer, opened[len(closed) :]) if opened.startswith(closed) else []


def _templated(tokenizer: PreTrainedTokenizerBase, prompt: Prompt, system: str | None) -> str:
    if not tokenizer.chat_template:
        raise InputError("this tokenizer has no chat template: set chat to false (prompts.chat)")
    messages = [{"role": "system", "content": system}] if system is not None else []
    messages.append({"role": "user", "content": prompt.text})
    try:
        return _apply(tokenizer, messages, True)
    except TemplateError as error:
        advice = "; leave out the system message (prompts.system)" if system is not None else ""
        raise InputError(
            f"the chat template refuses prompt {prompt.id!r}: {error}{advice}"
        ) from None


def _apply(
    tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], generate: bool
) -> str:
    """`enable_thinking=False` closes Qwen3's thinking block; other templates do not read it."""
    text = tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=generate, enable_thinking=False
    )
    return str(text)


def _answer(prompt: Prompt) -> str:
    if prompt.answer is None:
        raise InputError(f"prompt {prompt.id!r} has no answer: give it one or leave answers out")
    return prompt.answer


def _bos(tokenizer: PreTrainedTokenizerBase) -> str:
    """The BOS token, if the tokenizer begins texts with one; an EOS in its place is none."""
    bos = tokenizer.bos_token_id
    if bos is None or bos == tokenizer.eos_token_id:
        return ""
    return str(tokenizer.bos_token) if tokenizer("")["input_ids"][:1] == [bos] else ""


def _pad_id(tokenizer: PreTrainedTokenizerBase) -> int:
    ids: tuple[Any, ...] = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
    return next(i for i in ids if i is not None)
