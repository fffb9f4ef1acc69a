"""Load the text that an SAE is trained on."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TypeVar

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from saelens_steer.config import TINY_CORPUS
from saelens_steer.data.sources import (
    dataset_rows,
    json_lines,
    text_if_any,
    text_of,
    text_rows,
)
from saelens_steer.errors import InputError
from saelens_steer.files import read_jsonl

T = TypeVar("T")

TINY_CHATS = Path(__file__).parent / "corpora" / "tiny.jsonl.gz"
"""One chat per line, written by `scripts/tiny/data.py`."""
CHUNK = 256
"""Texts tokenized at a time to count their tokens."""


def load_corpus(name: str, tokenizer: PreTrainedTokenizerBase, n_tokens: int, seed: int) -> Dataset:
    """Texts with at least `n_tokens` tokens, or all texts if there are fewer, as `text`.

    `name` is one of
    - `tiny`: the shipped chats in the tokenizer's template, shuffled unless the seed is 0;
      InputError if they have fewer tokens;
    - a .txt file (texts are separated by blank lines) or a .jsonl file with `text`, shuffled;
    - a dataset `name[:config[:split]]`, in its own order.
    """
    return counted_corpus(name, tokenizer, n_tokens, seed)[0]


def counted_corpus(
    name: str, tokenizer: PreTrainedTokenizerBase, n_tokens: int, seed: int
) -> tuple[Dataset, int]:
    """`load_corpus`, and the number of tokens in its texts."""
    if n_tokens < 1:
        raise InputError(f"a corpus needs at least one token, not {n_tokens}")
    texts, held = _enough(_texts(name, tokenizer, seed), tokenizer, n_tokens)
    if not texts:
        raise InputError(f"the corpus {name!r} holds no text; give another sae.train.corpus")
    if name == TINY_CORPUS and held < n_tokens:
        raise InputError(
            f"the corpus 'tiny' has {held:,} tokens with this tokenizer, but {n_tokens:,} are "
            "needed: lower sae.train.training_tokens, make several passes over fewer "
            "sae.train.cached_tokens, or give another sae.train.corpus"
        )
    return Dataset.from_dict({"text": texts}), held


def _texts(name: str, tokenizer: PreTrainedTokenizerBase, seed: int) -> Iterator[str]:
    if name == TINY_CORPUS:
        return _tiny_texts(tokenizer, seed)
    if name.endswith(".txt"):
        return _shuffled((row["text"] for _, _, row in text_rows(Path(name))), seed)
    if name.endswith(".jsonl"):
        lines = json_lines(Path(name))
        return _shuffled((text_of(row, where, ("text",)) for where, _, row in lines), seed)
    return _dataset_texts(name)


def _tiny_texts(tokenizer: PreTrainedTokenizerBase, seed: int) -> Iterator[str]:
    """The shipped chats in the tokenizer's template, shuffled unless the seed is 0."""
    if not tokenizer.chat_template:
        raise InputError(
            "the corpus 'tiny' consists of chats, but this tokenizer has no chat template: give "
            "another sae.train.corpus"
        )
    chats = [row["messages"] for _, row in read_jsonl(TINY_CHATS)]
    for chat in chats if seed == 0 else _shuffled(chats, seed):
        yield str(tokenizer.apply_chat_template(chat, tokenize=False))


def _dataset_texts(name: str) -> Iterator[str]:
    """The dataset's texts; empty rows, common in real corpora, are skipped."""
    for number, row in enumerate(dataset_rows(name), start=1):
        if text := text_if_any(row, f"{name} row {number}", ("text",)):
            yield text


def _shuffled(items: Iterable[T], seed: int) -> Iterator[T]:
    shuffled = list(items)
    random.Random(seed).shuffle(shuffled)
    return iter(shuffled)


def _enough(
    texts: Iterator[str], tokenizer: PreTrainedTokenizerBase, n_tokens: int
) -> tuple[list[str], int]:
    """The first texts with `n_tokens` tokens in total, and the number of tokens they have."""
    found: list[str] = []
    held = 0
    while held < n_tokens and (chunk := list(islice(texts, CHUNK))):
        rows = tokenizer(chunk, add_special_tokens=False, verbose=False)["input_ids"]
        for text, ids in zip(chunk, rows, strict=True):
            if held < n_tokens:
                found.append(text)
                held += len(ids)
    return found, held
