"""Chat templates, left padding, and where answers begin."""

from __future__ import annotations

import copy

import pytest

from saelens_steer.config import TemplateSpec
from saelens_steer.data import Prompt, encode_prompts, pad_left, render, token_ids
from saelens_steer.errors import InputError

HELLO = Prompt("1", "hello", "", "print ('x')")
CONVERSATION = [{"role": "user", "content": "hello"}]
CHAT = TemplateSpec(chat=True)
START = "<|im_start|>assistant\n<think>\n\n</think>\n\n"


def test_the_template_ends_at_the_assistant_start_without_thinking(tokenizer):
    assert render(tokenizer, HELLO) == f"<|im_start|>user\nhello<|im_end|>\n{START}"


def test_the_system_message_comes_first(tokenizer):
    text = render(tokenizer, HELLO, TemplateSpec(system="Be brief"))
    assert text.startswith("<|im_start|>system\nBe brief<|im_end|>\n<|im_start|>user\nhello")


def test_a_tokenizer_without_chat_template_reads_plain_text_and_refuses_chats(new_tokenizer):
    plain = new_tokenizer(chat_template=None)
    for prompt, template in ((HELLO, CHAT), (CONVERSATION, TemplateSpec())):
        with pytest.raises(InputError, match=r"needs a chat template.*give plain text"):
            encode_prompts(plain, [prompt], template)
    (one,) = encode_prompts(plain, [HELLO])
    assert list(one.head) == plain("hello")["input_ids"]


def test_a_template_that_refuses_the_system_message_says_so(tokenizer):
    with pytest.raises(InputError, match="no system; leave out the system message"):
        render(tokenizer, HELLO, TemplateSpec(system="refuse"))


def test_plain_text_gets_the_bos_token_only_where_the_tokenizer_adds_it(new_tokenizer):
    from tokenizers.processors import TemplateProcessing

    with_bos = new_tokenizer(bos_token="<|reserved|>")
    (one,) = encode_prompts(with_bos, [HELLO])
    assert with_bos.bos_token_id not in one.head
    with_bos.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|reserved|> $A", special_tokens=[("<|reserved|>", with_bos.bos_token_id)]
    )
    (one,) = encode_prompts(with_bos, [HELLO])
    ids = list(one.head)
    assert ids == with_bos("hello")["input_ids"]
    assert ids.count(with_bos.bos_token_id) == 1


def test_a_template_that_writes_bos_gets_no_second_one(new_tokenizer):
    from tokenizers.processors import TemplateProcessing

    both = new_tokenizer(
        bos_token="<|reserved|>", chat_template="{{ bos_token }}{{ messages[0].content }}"
    )
    both.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|reserved|> $A", special_tokens=[("<|reserved|>", both.bos_token_id)]
    )
    assert token_ids(both, render(both, HELLO)).count(both.bos_token_id) == 1


def padded(tokenizer, texts):
    """Texts as they stand, left-padded: tokens and mask."""
    return pad_left([token_ids(tokenizer, text) for text in texts], tokenizer)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_is_on_the_left_whatever_the_tokenizer_prefers(new_tokenizer, side):
    mine = new_tokenizer(padding_side=side)
    tokens, mask = padded(mine, ["a formula and a function", "x"])
    assert tokens.shape == mask.shape
    assert mask[0].all()
    assert mask[1].tolist() == [False] * (tokens.shape[1] - 1) + [True]
    assert tokens[1, :-1].eq(mine.pad_token_id).all()
    assert mine.padding_side == side


def test_a_padded_row_holds_the_ids_of_the_row_alone(tokenizer):
    texts = ["x", "a formula", render(tokenizer, HELLO), "the naïve €"]
    tokens, mask = padded(tokenizer, texts)
    for row, real, text in zip(tokens, mask, texts, strict=True):
        assert row[real].tolist() == token_ids(tokenizer, text)
        assert tokenizer.decode(row[real]) == text


def test_padding_is_marked_by_place_even_where_the_text_holds_padding_tokens(tokenizer):
    tokens, mask = padded(tokenizer, ["<|endoftext|>x", "hello formula function"])
    assert int(mask[0].sum()) == 2
    assert tokens[0, -2] == tokenizer.pad_token_id


def test_without_padding_token_eos_pads_and_without_both_zero(new_tokenizer):
    assert pad_left([[5], [6, 7]], new_tokenizer(pad_token=None))[0][0, 0] == 2
    assert pad_left([[5], [6, 7]], new_tokenizer(pad_token=None, eos_token=None))[0][0, 0] == 0


@pytest.mark.parametrize("rows", [[], [[]], [[1], []]])
def test_empty_rows_are_refused(tokenizer, rows):
    with pytest.raises(InputError, match="at least one token"):
        pad_left(rows, tokenizer)


@pytest.mark.parametrize(
    ("id_", "named"), [(320, "token '.*' with id 320"), (10**9, "token id 10")]
)
def test_an_id_beyond_the_embedding_is_named(tokenizer, id_, named):
    with pytest.raises(InputError, match=f"{named}.*has 300 rows: remove it"):
        pad_left([[5, id_]], tokenizer, d_vocab=300)


def test_tokenizing_leaves_the_tokenizer_as_it_was(new_tokenizer):
    mine = new_tokenizer()
    before = copy.deepcopy(mine.init_kwargs), mine.backend_tokenizer.to_str(), len(mine)
    encode_prompts(mine, [HELLO] * 3, TemplateSpec(chat=True, system="s"))
    assert (mine.init_kwargs, mine.backend_tokenizer.to_str(), len(mine)) == before


def test_prompt_and_answer_are_encoded_apart_in_the_order_given(tokenizer):
    prompts = [HELLO, Prompt("2", "a much longer formula", "", "y"), Prompt("3", "x", "", "")]
    encoded = encode_prompts(tokenizer, prompts, CHAT)
    assert [e.prompt for e in encoded] == prompts
    for one, prompt in zip(encoded, prompts, strict=True):
        assert list(one.head) == token_ids(tokenizer, render(tokenizer, prompt))
        assert list(one.answer) == token_ids(tokenizer, prompt.answer)
        assert one.ids == one.head + one.answer


def test_an_answer_that_would_merge_with_the_prompt_is_kept_apart(tokenizer):
    (one,) = encode_prompts(tokenizer, [Prompt("1", "form", "", "ula")])
    assert one.ids == (*token_ids(tokenizer, "form"), *token_ids(tokenizer, "ula"))
    assert list(one.ids) != token_ids(tokenizer, "formula")


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{% for i in range(10**9) %}x{% endfor %}", "Range too big"),
        ("{{ messages[0]['content'] }}{{ 'x' * 10**7 }}", "characters into 10,000,005"),
        ("{{ 'x' * 10**15 }}", "MemoryError"),
        ("{{ 10**1000000 }}", "Exceeds the limit"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ ().__class__.__mro__ }}", "unsafe"),
        ("{% set _ = messages.append(1) %}", "not safely callable|unsafe|append"),
    ],
)
def test_a_template_that_grows_without_bound_or_breaks_out_is_refused(new_tokenizer, template, why):
    tokenizer = new_tokenizer()
    tokenizer.chat_template = template
    with pytest.raises(InputError, match=rf"the chat template rejects prompt .*({why})"):
        render(tokenizer, HELLO)
