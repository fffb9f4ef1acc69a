"""Apply chat templates, tokenize, and pad on the left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jinja2.exceptions import TemplateError
from transformers import PreTrainedTokenizerBase

from saelens_steer.data.prompts import Prompt
from saelens_steer.data.special_tokens import apply_template, bos_id, text_start
from saelens_steer.errors import InputError
from saelens_steer.tensors import Mask, Tokens


def render(
    tokenizer: PreTrainedTokenizerBase,
    prompt: Prompt,
    *,
    system: str | None = None,
    chat: bool = True,
) -> str:
    """The text that the model reads: the chat template up to the start of the assistant's answer.

    `chat=False` gives the plain text, after a BOS token if the tokenizer adds one (see
    `special_tokens`). InputError if the chat template is missing or rejects the messages.
    """
    if not chat:
        ids = token_ids(tokenizer, prompt.text)
        start = text_start(tokenizer).before(ids, bos_id(tokenizer))
        return "".join(tokenizer.convert_ids_to_tokens(list(start))) + prompt.text
    if not tokenizer.chat_template:
        raise InputError("this tokenizer has no chat template: set chat to false (prompts.chat)")
    messages = [{"role": "system", "content": system}] if system is not None else []
    messages.append({"role": "user", "content": prompt.text})
    try:
        return apply_template(tokenizer, messages, True)
    except TemplateError as error:
        advice = "; leave out the system message (prompts.system)" if system is not None else ""
        raise InputError(
            f"the chat template rejects prompt {prompt.id!r}: {error}{advice}"
        ) from None


def token_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of rendered text; templates write special tokens, so none are added."""
    return tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]


def pad_left(
    rows: Sequence[Sequence[int]],
    tokenizer: PreTrainedTokenizerBase,
    device: str | torch.device = "cpu",
    d_vocab: int | None = None,
) -> tuple[Tokens, Mask]:
    """Left-padded tokens and their mask, whichever side the tokenizer pads on.

    The padding id is the tokenizer's, else its EOS id, else 0: the first below d_vocab. InputError
    if there are no rows, or a row is empty or holds an id beyond the embedding.
    """
    if not rows or not all(rows):
        raise InputError("there must be at least one text, and each needs at least one token")
    ids: tuple[Any, ...] = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
    pad = next(i for i in ids if i is not None and (d_vocab is None or i < d_vocab))
    if d_vocab is not None and (beyond := max(map(max, rows))) >= d_vocab:
        raise InputError(
            f"a text holds the token {tokenizer.convert_ids_to_tokens(beyond)!r} with id {beyond}, "
            f"but the model's embedding has {d_vocab} rows: remove it from the text"
        )
    width = max(map(len, rows))
    tokens = torch.full((len(rows), width), pad, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for i, row in enumerate(rows):
        tokens[i, width - len(row) :] = torch.tensor(row)
        mask[i, width - len(row) :] = True
    return tokens.to(device), mask.to(device)


def generation_prompt(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Token ids that the chat template puts before an answer; empty without a template."""
    if not tokenizer.chat_template:
        return []
    messages = [{"role": "user", "content": "x"}]
    closed, opened = (apply_template(tokenizer, messages, generate) for generate in (False, True))
    return token_ids(tokenizer, opened[len(closed) :]) if opened.startswith(closed) else []
