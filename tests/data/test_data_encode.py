"""Laws of text that a model wrote: encoded again, it gives the tokens that were written."""

from __future__ import annotations

import random

from saelens_steer.data import token_ids, written_text


def test_text_that_is_tokenised_alike_comes_back_whole(tokenizer):
    for text in (" a formula and a function", "print ('x')", " café €"):
        assert written_text(tokenizer, token_ids(tokenizer, text)) == text


def test_text_ends_before_the_first_special_token(tokenizer):
    ids = [*token_ids(tokenizer, " a formula"), tokenizer.eos_token_id, tokenizer.pad_token_id]
    assert written_text(tokenizer, ids) == " a formula"
    assert written_text(tokenizer, [tokenizer.eos_token_id]) == ""
    assert written_text(tokenizer, []) == ""


def test_a_character_that_the_limit_cut_in_two_is_left_out(tokenizer):
    whole, euro = token_ids(tokenizer, " a"), tokenizer.convert_tokens_to_ids(["â", "Ĥ"])
    assert "\ufffd" in tokenizer.decode([*whole, *euro])
    assert written_text(tokenizer, [*whole, *euro]) == " a"


def test_whatever_ids_are_written_the_text_gives_back_the_first_of_them(tokenizer):
    rng = random.Random(0)
    for _ in range(200):
        ids = [rng.randrange(len(tokenizer)) for _ in range(rng.randrange(12))]
        again = token_ids(tokenizer, written_text(tokenizer, ids))
        assert again == ids[: len(again)]
