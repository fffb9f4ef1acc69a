"""Writes the corpus `tiny`: `python -m scripts.tiny.data`."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from saelens_steer.data import token_ids
from saelens_steer.data.corpus import TINY_CHATS
from saelens_steer.files import write_bytes
from saelens_steer.model.snapshot import TINY_WEIGHTS
from saelens_steer.model.tiny.corpus import Chat, chat_text, chats

CORPUS_TOKENS = 650_000
"""By the tiny model's tokenizer. configs/tiny/sae_grid.yaml reads the most, 625,000."""


def write_corpus(path: Path = TINY_CHATS) -> Path:
    """The chats of seed 0 in the order drawn, gzipped JSONL; the same bytes for one zlib."""
    tokenizer = AutoTokenizer.from_pretrained(TINY_WEIGHTS)
    lines = (json.dumps({"messages": chat}) + "\n" for chat in _enough(tokenizer))
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=packed, mtime=0) as file:
        file.writelines(line.encode() for line in lines)
    return write_bytes(path, packed.getvalue())


def _enough(tokenizer: PreTrainedTokenizerBase) -> Iterator[Chat]:
    left = CORPUS_TOKENS
    for chat in chats(seed=0):
        if left <= 0:
            return
        left -= len(token_ids(tokenizer, chat_text(chat, tokenizer)))
        yield chat


if __name__ == "__main__":
    print(write_corpus())
