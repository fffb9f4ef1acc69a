"""Corpora: enough text, the same text for the same arguments."""

from __future__ import annotations

import gzip
import json

import pytest
from datasets import Dataset

import saelens_steer.data.corpus as module
from saelens_steer.data import load_corpus, token_ids
from saelens_steer.errors import InputError


def n_tokens(tokenizer, corpus) -> int:
    return sum(len(token_ids(tokenizer, text)) for text in corpus["text"])


@pytest.fixture
def paragraphs(tmp_path):
    path = tmp_path / "book.txt"
    path.write_text("\n \n".join(f"hello formula\nnumber {i}" for i in range(40)) + "\n\n\n")
    return str(path)


def test_a_text_file_gives_one_text_per_block(tokenizer, paragraphs):
    corpus = load_corpus(paragraphs, tokenizer, 10**6, seed=0)
    assert isinstance(corpus, Dataset)
    assert corpus.column_names == ["text"]
    assert sorted(corpus["text"]) == sorted(f"hello formula\nnumber {i}" for i in range(40))


def test_texts_stop_once_there_are_enough_tokens(tokenizer, paragraphs):
    corpus = load_corpus(paragraphs, tokenizer, 50, seed=0)
    assert n_tokens(tokenizer, corpus) >= 50
    assert n_tokens(tokenizer, corpus.select(range(len(corpus) - 1))) < 50


def test_the_seed_decides_the_order(tokenizer, paragraphs):
    one, two, other = (load_corpus(paragraphs, tokenizer, 60, s)["text"] for s in (1, 1, 2))
    assert list(one) == list(two) != list(other)


def test_a_jsonl_file_needs_text_in_each_line(tokenizer, jsonl):
    corpus = load_corpus(str(jsonl({"text": "a"}, {"text": "b"})), tokenizer, 10**6, seed=0)
    assert sorted(corpus["text"]) == ["a", "b"]
    with pytest.raises(InputError, match="line 2 has no 'text'"):
        load_corpus(str(jsonl({"text": "a"}, {"prompt": "b"})), tokenizer, 10, seed=0)


def test_a_dataset_is_read_in_order_without_its_empty_rows(tokenizer, tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "train.jsonl").write_text('{"text": "a"}\n{"text": ""}\n{"text": "b"}\n')
    corpus = load_corpus(str(tmp_path / "d"), tokenizer, 10**6, seed=0)
    assert list(corpus["text"]) == ["a", "b"]


def test_a_dataset_without_text_column_is_refused(tokenizer, tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "train.jsonl").write_text('{"body": "a"}\n')
    with pytest.raises(InputError, match="row 1 has no 'text', only body"):
        load_corpus(str(tmp_path / "d"), tokenizer, 10, seed=0)


def test_what_cannot_be_read_is_named(tokenizer, tmp_path):
    with pytest.raises(InputError, match=r"there is no file .*gone\.txt"):
        load_corpus(str(tmp_path / "gone.txt"), tokenizer, 10, seed=0)
    with pytest.raises(InputError, match="cannot load the dataset 'zzz/zzz'"):
        load_corpus("zzz/zzz", tokenizer, 10, seed=0)
    (tmp_path / "bad.txt").write_bytes(b"ok\n\n\xff")
    with pytest.raises(InputError, match=r"bad\.txt line 3 is not UTF-8"):
        load_corpus(str(tmp_path / "bad.txt"), tokenizer, 10, seed=0)


def test_an_empty_corpus_and_no_tokens_are_refused(tokenizer, tmp_path):
    (tmp_path / "empty.txt").write_text("\n \n\n")
    with pytest.raises(InputError, match="holds no text"):
        load_corpus(str(tmp_path / "empty.txt"), tokenizer, 10, seed=0)
    with pytest.raises(InputError, match="at least one token"):
        load_corpus(str(tmp_path / "empty.txt"), tokenizer, 0, seed=0)


def test_the_tiny_corpus_is_long_enough_and_follows_its_seed(tokenizer):
    one, two, other = (load_corpus("tiny", tokenizer, 3000, s) for s in (0, 0, 1))
    assert n_tokens(tokenizer, one) >= 3000
    assert list(one["text"]) == list(two["text"]) != list(other["text"])


@pytest.fixture
def ten_chats(tmp_path, monkeypatch):
    """The contents of ten chats that stand for the shipped ones."""
    chats = [[{"role": "user", "content": f"hello {i}"}] for i in range(10)]
    path = tmp_path / "chats.jsonl.gz"
    path.write_bytes(
        gzip.compress("".join(json.dumps({"messages": c}) + "\n" for c in chats).encode())
    )
    monkeypatch.setattr(module, "TINY_CHATS", path)
    return [chat[0]["content"] for chat in chats]


def contents(corpus) -> list[str]:
    return [text.split("\n")[1].removesuffix("<|im_end|>") for text in corpus["text"]]


def test_seed_0_keeps_the_order_of_the_tiny_corpus_and_others_shuffle_it(tokenizer, ten_chats):
    whole = n_tokens(tokenizer, load_corpus("tiny", tokenizer, 1, 0)) * 10
    drawn = {seed: contents(load_corpus("tiny", tokenizer, whole, seed)) for seed in (0, 1, 2)}
    assert drawn[0] == ten_chats
    assert sorted(drawn[1]) == sorted(drawn[2]) == ten_chats
    assert drawn[1] != drawn[2] != ten_chats


def test_the_tiny_corpus_refuses_more_tokens_than_it_holds_and_says_how_many(tokenizer, ten_chats):
    whole = n_tokens(tokenizer, load_corpus("tiny", tokenizer, 1, 0)) * 10
    refusal = f"'tiny' has {whole} tokens .* {whole + 1} are needed: lower .*training_tokens"
    for seed in (0, 1):
        with pytest.raises(InputError, match=refusal):
            load_corpus("tiny", tokenizer, whole + 1, seed)


def test_the_tiny_corpus_needs_a_chat_template(new_tokenizer):
    with pytest.raises(InputError, match="has no chat template: give another"):
        load_corpus("tiny", new_tokenizer(chat_template=None), 1, 0)
