"""Apply chat templates, tokenize, and pad on the left."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from saelens_steer.config import TemplateSpec
from saelens_steer.data.prompt import Prompt
from saelens_steer.data.special_tokens import TEMPLATE_ERRORS, apply_template
from saelens_steer.errors import InputError
from saelens_steer.progress import say_once
from saelens_steer.tensors import Mask, Tokens


def render(
    tokenizer: PreTrainedTokenizerBase,
    prompt: Prompt,
    template: TemplateSpec = TemplateSpec(),  # noqa: B008
) -> str:
    """The conversation (of plain text, one user's turn) as the chat template writes it.

    It ends where the assistant's answer begins, or within the last turn if that is the assistant's.
    InputError if the template is missing, rejects the messages or leaves a turn out.
    """
    named = f"prompt {prompt.id!r}"
    if not tokenizer.chat_template:
        raise InputError(
            f"{named} needs a chat template, and this tokenizer has none: give plain text, without "
            "chat=True (prompts.chat: true), or set tokenizer.chat_template"
        )
    messages = _with_system(prompt, template.system)
    options = dict(template.chat_template_kwargs or {})
    _check_options(tokenizer, options)
    generate = template.add_generation_prompt
    if generate and messages[-1]["role"] == "assistant":
        generate, options = False, {**options, "continue_final_message": True}
    try:
        text = apply_template(tokenizer, messages, generate, options)
    except TEMPLATE_ERRORS as error:
        advice = "; leave out the system message (prompts.system)" if template.system else ""
        if messages[0]["role"] == "system" and not advice:
            advice = "; leave out its system turn, or put it into the user's"
        said = str(error).split(" This can happen")[0] or type(error).__name__
        raise InputError(f"the chat template rejects {named}: {said}{advice}") from None
    lost = next((m for m in messages if _is_lost(m, text)), None)
    if lost is not None:
        raise InputError(
            f"the chat template leaves out the {lost['role']} turn {lost['content'][:40]!r} of "
            f"{named}: leave it out yourself, or set tokenizer.chat_template"
        )
    if date := todays_date(tokenizer, prompt, text, template):
        say_once(
            tokenizer,
            f"The chat template writes today's date into each prompt, {date!r}, so results change "
            f"from day to day: {_dated(tokenizer, date)}.",
        )
    return text


CLOCK = re.compile(r"""strftime_now\(\s*(['"])(?P<format>.*?)\1\s*\)""")
"""How a template asks for the date."""


def writes_dates(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the chat template asks for the date."""
    return CLOCK.search(_source(tokenizer)) is not None


def todays_date(
    tokenizer: PreTrainedTokenizerBase, prompt: Prompt, text: str, template: TemplateSpec
) -> str | None:
    """The date that the chat template itself wrote into a prompt's text, such as "29 Nov 2026"."""
    options = (template.chat_template_kwargs or {}).values()
    given = "\n".join([*prompt.turns, template.system or "", *map(str, options)])
    formats = (found["format"] for found in CLOCK.finditer(_source(tokenizer)))
    dates = (datetime.now().strftime(one) for one in formats)
    return next((date for date in dates if date in text and date not in given), None)


def _dated(tokenizer: PreTrainedTokenizerBase, date: str) -> str:
    """What to write so that the template writes this date on any day."""
    source = _source(tokenizer)
    for name in re.findall(r"\bset\s+(\w+)\s*=\s*strftime_now\b", source):
        if re.search(rf"\b{name}\s+is\s+(not\s+)?defined\b", source):
            given = f"chat_template_kwargs={{{name!r}: {date!r}}}"
            return f"give {given} (prompts.chat_template_kwargs) to fix the date"
    return "put a date in place of strftime_now(…) in tokenizer.chat_template"


def _with_system(prompt: Prompt, system: str | None) -> list[dict[str, str]]:
    messages = [{"role": role, "content": str(content)} for role, content in prompt.content]
    if system is None:
        return messages
    if messages[0]["role"] == "system":
        raise InputError(
            f"prompt {prompt.id!r} already begins with a system turn: leave out system "
            "(prompts.system)"
        )
    return [{"role": "system", "content": system}, *messages]


def _is_lost(message: Mapping[str, str], text: str) -> bool:
    """Whether a turn is missing; of the assistant's, templates rightly leave out the thinking."""
    return message["role"] != "assistant" and message["content"].strip() not in text


OURS = (
    "tokenize",
    "add_generation_prompt",
    "continue_final_message",
    "return_dict",
    "chat_template",
)
"""Arguments of `apply_chat_template` that are not options of a template."""


def _check_options(tokenizer: PreTrainedTokenizerBase, options: Mapping[str, object]) -> None:
    """InputError for an option that the template never reads."""
    text = _source(tokenizer)
    for name in options:
        if name in OURS or not re.search(rf"\b{re.escape(name)}\b", text):
            raise InputError(
                f"chat_template_kwargs: the chat template has no option {name!r}: leave it out"
            )


def _source(tokenizer: PreTrainedTokenizerBase) -> str:
    """The chat template, or all of several."""
    written: Any = tokenizer.chat_template
    return "\n".join(written.values()) if isinstance(written, dict) else str(written)


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
        token: Any = tokenizer.convert_ids_to_tokens(beyond)
        named = f"token {token!r} with id" if token else "token id"
        raise InputError(
            f"a text contains the {named} {beyond}, but the model's embedding has {d_vocab} rows: "
            "remove it from the text"
        )
    width = max(map(len, rows))
    tokens = torch.full((len(rows), width), pad, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for i, row in enumerate(rows):
        tokens[i, width - len(row) :] = torch.tensor(row)
        mask[i, width - len(row) :] = True
    return tokens.to(device), mask.to(device)


def generation_prompt(
    tokenizer: PreTrainedTokenizerBase, options: Mapping[str, object] | None = None
) -> list[int]:
    """Token ids that the chat template puts before an answer; empty without a template."""
    closed, opened = _either_end(tokenizer, options or {})
    return token_ids(tokenizer, opened[len(closed) :]) if opened.startswith(closed) else []


def openings(tokenizer: PreTrainedTokenizerBase, template: TemplateSpec) -> tuple[str, ...]:
    """All that the template may write between a user's turn and the answer, longest first.

    That is the generation prompt, with and without thinking, or all that follows the user's words
    if the template has none.
    """
    found = set[str]()
    own = dict(template.chat_template_kwargs or {})
    for options in ({}, {"enable_thinking": True}, own):
        closed, opened = _either_end(tokenizer, options)
        generated = opened[len(closed) :] if opened.startswith(closed) else ""
        found.add(generated or opened.rpartition(QUESTION)[2])
    return tuple(sorted(found - {""}, key=len, reverse=True))


QUESTION = "What is asked?"


def _either_end(
    tokenizer: PreTrainedTokenizerBase, options: Mapping[str, object]
) -> tuple[str, str]:
    """A question in the template, without and with the generation prompt; "" if that fails."""
    if not tokenizer.chat_template:
        return "", ""
    asked = [{"role": "user", "content": QUESTION}]
    try:
        closed, opened = (apply_template(tokenizer, asked, end, options) for end in (False, True))
    except TEMPLATE_ERRORS:
        return "", ""
    return closed, opened
