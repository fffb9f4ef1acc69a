"""The tiny model's training text: the grammar in its chat template."""

from __future__ import annotations

import random
from collections.abc import Iterator

from transformers import PreTrainedTokenizerBase

from saelens_steer.model.tiny.grammar import FAMILIES, Example, stream

SHARES = {"code": 0.24, "math": 0.20, "mixed": 0.36, "prose": 0.09, "transport": 0.11}
"""Each family's share of the chats."""

SYSTEM = "You are a helpful assistant."
SYSTEM_SHARE = 0.04


def corpus_texts(n: int, seed: int, tokenizer: PreTrainedTokenizerBase) -> Iterator[str]:
    """`n` templated chats of the training split, in the mixture the model was trained on."""
    rng = random.Random(f"corpus/{seed}")
    streams = {family: stream(family, seed) for family in FAMILIES}
    families, shares = list(SHARES), list(SHARES.values())
    for _ in range(n):
        example = next(streams[rng.choices(families, shares)[0]])
        yield chat_text(example, tokenizer, system=rng.random() < SYSTEM_SHARE)


def chat_text(example: Example, tokenizer: PreTrainedTokenizerBase, system: bool = False) -> str:
    """One example as a whole chat, in the tokenizer's template."""
    messages = [{"role": "system", "content": SYSTEM}] if system else []
    messages += [
        {"role": "user", "content": example.prompt},
        {"role": "assistant", "content": example.answer},
    ]
    return str(tokenizer.apply_chat_template(messages, tokenize=False))
