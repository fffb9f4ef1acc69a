"""Text to train an SAE on."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from saelens_steer.data.hub import dataset_rows, text_of
from saelens_steer.data.rows import json_lines, text_rows
from saelens_steer.errors import InputError

TINY = "tiny"
CHUNK = 256
"""Texts tokenised at a time when counting."""


def load_corpus(name: str, tokenizer: PreTrainedTokenizerBase, n_tokens: int, seed: int) -> Dataset:
    """Texts of at least `n_tokens` tokens (all there are, if fewer) in one column `text`.

    `name`: `tiny` (the shipped model's corpus, drawn by `seed`), a .txt file (a blank line ends a
    text), a .jsonl file with `text`, both shuffled by `seed`, or a dataset `name[:config[:split]]`
    in its own order. Equal arguments give equal texts. Raises InputError.
    """
    if n_tokens < 1:
        raise InputError(f"a corpus needs at least one token, not {n_tokens}")
    texts = list(_enough(_texts(name, tokenizer, n_tokens, seed), tokenizer, n_tokens))
    if not texts:
        raise InputError(f"the corpus {name!r} holds no text")
    return Dataset.from_dict({"text": texts})


def _texts(
    name: str, tokenizer: PreTrainedTokenizerBase, n_tokens: int, seed: int
) -> Iterator[str]:
    if name == TINY:
        from saelens_steer.model import corpus_texts

        return corpus_texts(n_tokens, seed, tokenizer)
    if name.endswith(".txt"):
        return _shuffled((row["text"] for _, _, row in text_rows(Path(name))), seed)
    if name.endswith(".jsonl"):
        lines = json_lines(Path(name))
        return _shuffled((text_of(row, where, ("text",)) for where, _, row in lines), seed)
    return _dataset_texts(name)


def _dataset_texts(name: str) -> Iterator[str]:
    """The dataset's texts; its empty rows are left out, as real corpora have some."""
    for number, row in enumerate(dataset_rows(name), start=1):
        text = row.get("text", ...)
        if text is None or (isinstance(text, str) and not text.strip()):
            continue
        yield text_of(row, f"{name} row {number}", ("text",))


def _shuffled(texts: Iterable[str], seed: int) -> Iterator[str]:
    shuffled = list(texts)
    random.Random(seed).shuffle(shuffled)
    return iter(shuffled)


def _enough(
    texts: Iterator[str], tokenizer: PreTrainedTokenizerBase, n_tokens: int
) -> Iterator[str]:
    """Texts until their tokens add up to `n_tokens`."""
    while n_tokens > 0 and (chunk := list(islice(texts, CHUNK))):
        rows = tokenizer(chunk, add_special_tokens=False, verbose=False)["input_ids"]
        for text, ids in zip(chunk, rows, strict=True):
            if n_tokens > 0:
                yield text
            n_tokens -= len(ids)
