"""The tiny model's training texts: the grammar's chats and a little Python source."""

from __future__ import annotations

import random
import sysconfig
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from scripts.tiny.grammar import FAMILIES, Example, stream

SHARES = {"code": 0.24, "math": 0.20, "mixed": 0.36, "prose": 0.09, "transport": 0.11}
"""Each family's share of the chats."""

SYSTEM = "You are a helpful assistant."
SYSTEM_SHARE = 0.04

Chat = list[dict[str, str]]
"""Messages with a `role` and a `content`."""


def chats(seed: int) -> Iterator[Chat]:
    """An endless stream of training chats, in the mixture that the model was trained on."""
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


SKIPPED = {"test", "tests", "idle_test", "site-packages", "__pycache__", "lib2to3", "encodings"}


def source_files() -> list[Path]:
    """The standard library's modules in a fixed order, without tests."""
    root = Path(sysconfig.get_path("stdlib"))
    found = (path.relative_to(root) for path in root.rglob("*.py"))
    return [root / path for path in sorted(found) if not SKIPPED.intersection(path.parts)]


def python_source(seed: int, pieces: int, lines: int = 12) -> Iterator[str]:
    """`pieces` random excerpts of source, each of `lines` consecutive lines."""
    rng = random.Random(f"source/{seed}")
    files = source_files()
    for _ in range(pieces):
        text = rng.choice(files).read_text(encoding="utf-8", errors="replace").splitlines()
        start = rng.randrange(max(1, len(text) - lines))
        yield "\n".join(text[start : start + lines]) + "\n"
