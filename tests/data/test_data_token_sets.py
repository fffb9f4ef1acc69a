"""Token sets: what belongs to them, what never does."""

from __future__ import annotations

import json
import random
import time

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from saelens_steer.config import TemplateSpec, TokenSetSpec
from saelens_steer.data import (
    Prompt,
    complement,
    describe,
    diagnostic_positions,
    encode_prompts,
    ordinary_entries,
    pad_left,
    render,
    token_ids,
    token_set,
)
from saelens_steer.errors import InputError


def chosen(tokenizer, d_vocab=None, **spec) -> list[str]:
    """The decoded entries of a set."""
    ids = token_set(TokenSetSpec(**spec), tokenizer, d_vocab or len(tokenizer))
    assert ids == sorted(set(ids))
    return describe(ids, tokenizer)


def test_latex_delimiters_are_whole_entries_with_or_without_space(tokenizer):
    found = chosen(tokenizer, name="latex_delimiters")
    assert set(found) == {"$", " $", " $$", "\\(", " \\["}


def test_code_fences_are_runs_of_backticks(tokenizer):
    found = chosen(tokenizer, name="code_fences")
    assert found
    assert all(text.strip() == "```" for text in found)


def test_strings_are_found_with_and_without_a_leading_space(tokenizer):
    assert set(chosen(tokenizer, strings=("$",))) == {"$", " $"}


def test_a_string_of_several_tokens_is_named(tokenizer):
    with pytest.raises(InputError, match="'formula function' is not a single"):
        chosen(tokenizer, strings=("$", "formula function"))


def test_ids_are_sorted_checked_and_unique(tokenizer):
    assert token_set(TokenSetSpec(ids=(50, 40, 50)), tokenizer, len(tokenizer)) == [40, 50]
    for wrong in (-1, len(tokenizer), 10**9):
        with pytest.raises(InputError, match=rf"token id {wrong} is not in the vocabulary \(0 to"):
            chosen(tokenizer, ids=(40, wrong))


def test_a_regex_matches_the_whole_entry(tokenizer):
    assert set(chosen(tokenizer, regex=r" ?\$")) == {"$", " $"}
    assert chosen(tokenizer, regex=r"[0-9]") == [str(i) for i in range(10)]


@pytest.mark.parametrize("regex", ["(", "[z-a]", "a{99999999999}"])
def test_a_bad_regex_is_told(tokenizer, regex):
    with pytest.raises(InputError, match="is not a regular expression"):
        chosen(tokenizer, regex=regex)


def test_a_set_without_entries_is_told(tokenizer):
    with pytest.raises(InputError, match=r"no vocabulary entry .*regex='qqqq'"):
        chosen(tokenizer, regex="qqqq")


def test_an_unknown_name_is_told_with_the_nearest(tokenizer):
    with pytest.raises(ValueError, match="did you mean 'latex_delimiters'"):
        chosen(tokenizer, name="latex_delimiter")


def test_special_tokens_are_in_no_set(tokenizer):
    special = tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_start|>", "<|reserved|>"])
    every = token_set(TokenSetSpec(regex=r"(?s).*"), tokenizer, len(tokenizer))
    assert not set(special) & set(every)
    assert not set(special) & set(complement([], tokenizer, len(tokenizer)))
    with pytest.raises(InputError, match="special"):
        chosen(tokenizer, ids=(special[1],))
    with pytest.raises(InputError, match="not a single ordinary token"):
        chosen(tokenizer, strings=("<|im_start|>",))


def test_an_added_token_that_is_not_special_is_ordinary(tokenizer):
    assert chosen(tokenizer, strings=("<think>",)) == ["<think>"]


def test_rows_beyond_the_tokenizer_are_in_no_set(tokenizer):
    d_vocab = len(tokenizer) + 64
    assert max(complement([], tokenizer, d_vocab)) < len(tokenizer)
    with pytest.raises(InputError, match="not in the vocabulary"):
        chosen(tokenizer, d_vocab, ids=(len(tokenizer),))


def test_entries_beyond_the_unembedding_are_in_no_set(tokenizer):
    assert max(complement([], tokenizer, 300)) < 300


def test_set_and_complement_are_a_partition_of_the_ordinary_entries(tokenizer):
    d_vocab = len(tokenizer) + 8
    ids = token_set(TokenSetSpec(name="latex_delimiters"), tokenizer, d_vocab)
    other = complement(ids, tokenizer, d_vocab)
    assert not set(ids) & set(other)
    assert sorted(ids + other) == list(ordinary_entries(tokenizer, d_vocab))


def test_a_part_of_a_character_has_no_text_but_belongs_to_the_complement(tokenizer):
    part = tokenizer.convert_tokens_to_ids("â")  # the first byte of €
    assert "\ufffd" in tokenizer.decode([part])
    assert part not in token_set(TokenSetSpec(regex=r"(?s).*"), tokenizer, len(tokenizer))
    assert part in complement([], tokenizer, len(tokenizer))
    assert token_set(TokenSetSpec(ids=(part,)), tokenizer, len(tokenizer)) == [part]
    assert describe([part], tokenizer) == ["â"]


def test_describing_keeps_spaces_and_the_order(tokenizer):
    ids = [i for text in (" $", "$") for i in token_ids(tokenizer, text)]
    assert describe(ids, tokenizer) == [" $", "$"]
    assert describe(ids[::-1], tokenizer) == ["$", " $"]


def test_tokens_added_later_are_seen(new_tokenizer):
    mine = new_tokenizer()
    before = len(complement([], mine, 10_000))
    mine.add_tokens(["<new>"])
    assert len(complement([], mine, 10_000)) == before + 1
    assert chosen(mine, strings=("<new>",)) == ["<new>"]


def test_a_decoder_that_strips_the_leading_space_still_tells_entries_apart():
    vocabulary = {"▁": 0, "a": 1, "▁a": 2, "$": 3, "▁$": 4, "<unk>": 5}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=[("▁", "a"), ("▁", "$")]))
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    inner.decoder = decoders.Metaspace(prepend_scheme="first")
    mine = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>")
    assert mine.decode([4]) == "$"
    assert ordinary_entries(mine, 6) == {0: " ", 1: "a", 2: " a", 3: "$", 4: " $"}


def test_a_vocabulary_of_qwens_size_is_read_once_at_the_cost_of_decoding_it_a_few_times():
    rng = random.Random(0)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {c: i for i, c in enumerate(alphabet)}
    while len(vocabulary) < 151_643:
        vocabulary.setdefault("".join(rng.choices(alphabet, k=rng.randint(2, 8))), len(vocabulary))
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    inner.decoder, inner.pre_tokenizer = decoders.ByteLevel(), pre_tokenizers.ByteLevel(False)
    mine = PreTrainedTokenizerFast(tokenizer_object=inner)

    def read():
        ids = token_set(TokenSetSpec(name="latex_delimiters"), mine, 151_936)
        return ids, complement(ids, mine, 151_936)

    def cpu(work):
        start = time.process_time()
        work()
        return time.process_time() - start

    decoding = 10 * cpu(lambda: [mine.decode(i) for i in range(15_164)])
    first = cpu(read)
    assert first < 6 * decoding
    assert cpu(read) < first / 2  # the vocabulary is remembered
    ids, other = read()
    assert len(ids) + len(other) == 151_643


def padded(tokenizer, texts):
    """Texts as they stand, left-padded: tokens and mask."""
    return pad_left([token_ids(tokenizer, text) for text in texts], tokenizer)


def batch(tokenizer, prompts):
    """Tokens, mask, and the position of each row's first answer token."""
    encoded = encode_prompts(tokenizer, prompts, TemplateSpec(chat=True))
    tokens, mask = pad_left([e.ids for e in encoded], tokenizer)
    return tokens, mask, [tokens.shape[1] - len(e.answer) for e in encoded]


def test_the_last_prompt_token_is_a_diagnostic_position(tokenizer):
    tokens, mask, _ = batch(tokenizer, [Prompt("1", "hello"), Prompt("2", "a long formula")])
    found = diagnostic_positions(tokens, mask, tokenizer)
    assert found[:, -1].all()
    assert found.sum() == 2


def test_fences_and_delimiters_are_diagnostic_positions(tokenizer):
    prompt = Prompt("1", "the $$ x", "", "``` python\n y $ z")
    tokens, mask, starts = batch(tokenizer, [prompt, Prompt("2", "x", "", "y")])
    found = diagnostic_positions(tokens, mask, tokenizer)
    texts = describe(tokens[0][found[0]].tolist(), tokenizer)
    assert [t.strip() for t in texts] == ["$$", "", "```", "$"]
    assert found[0, starts[0] - 1]
    assert found[1, starts[1] - 1]
    assert found[1].sum() == 1


def test_padding_is_never_diagnostic(new_tokenizer):
    fence_padded = new_tokenizer(pad_token="$", chat_template=None)
    tokens, mask = padded(fence_padded, ["x", "hello formula function"])
    found = diagnostic_positions(tokens, mask, fence_padded)
    assert not (found & ~mask).any()


def test_plain_text_has_its_last_token_in_place_of_an_assistant_start(new_tokenizer):
    mine = new_tokenizer(chat_template=None)
    tokens, mask = padded(mine, ["hello formula", "x"])
    found = diagnostic_positions(tokens, mask, mine)
    assert found.sum(1).tolist() == [1, 1]
    assert found[:, -1].all()


def test_every_assistant_start_of_a_packed_row_is_diagnostic(tokenizer):
    one = token_ids(tokenizer, render(tokenizer, Prompt("1", "hello")) + "x<|im_end|>\n")
    start = len(token_ids(tokenizer, render(tokenizer, Prompt("1", "hello")))) - 1
    tokens = torch.tensor([one * 3])
    found = diagnostic_positions(tokens, torch.ones_like(tokens, dtype=torch.bool), tokenizer)
    assert found[0].nonzero().flatten().tolist() == [start + i * len(one) for i in range(3)]


def test_the_spec_of_a_set_survives_json(tokenizer):
    spec = TokenSetSpec(strings=("$",))
    again = TokenSetSpec.model_validate(json.loads(spec.model_dump_json()))
    assert token_set(again, tokenizer, 400) == token_set(spec, tokenizer, 400)
