"""The tiny model's training text: the grammar in its chat template."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice

from transformers import PreTrainedTokenizerBase

from saelens_steer.model.tiny.grammar import FAMILIES, Example, stream

SHARES = {"code": 0.24, "math": 0.20, "mixed": 0.36, "prose": 0.09, "transport": 0.11}
"""Each family's share of the chats."""

SYSTEM = "You are a helpful assistant."
SYSTEM_SHARE = 0.04

Chat = list[dict[str, str]]
"""Messages with a `role` and a `content`."""


def chats(seed: int) -> Iterator[Chat]:
    """Chats of the training split without end, in the mixture the model was trained on."""
    rng = random.Random(f"corpus/{seed}")
    streams = {family: stream(family, seed) for family in FAMILIES}
    families, shares = list(SHARES), list(SHARES.values())
    while True:
        example = next(streams[rng.choices(families, shares)[0]])
        yield chat_of(example, system=rng.random() < SYSTEM_SHARE)


def corpus_texts(n: int, seed: int, tokenizer: PreTrainedTokenizerBase) -> Iterator[str]:
    """The first `n` chats in the tokenizer's template."""
    return (chat_text(chat, tokenizer) for chat in islice(chats(seed), n))


def chat_of(example: Example, system: bool = False) -> Chat:
    """One example as a whole chat."""
    opening = [{"role": "system", "content": SYSTEM}] if system else []
    return [
        *opening,
        {"role": "user", "content": example.prompt},
        {"role": "assistant", "content": example.answer},
    ]


def chat_text(chat: Chat, tokenizer: PreTrainedTokenizerBase) -> str:
    """The chat in the tokenizer's template."""
    return str(tokenizer.apply_chat_template(chat, tokenize=False))
