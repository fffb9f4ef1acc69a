"""Chat templates, left padding and answer spans."""

from __future__ import annotations

import copy

import pytest
import torch

from saelens_steer.data import (
    Batch,
    Prompt,
    answer_span,
    pad_left,
    render,
    token_batches,
    token_ids,
    tokenize,
)
from saelens_steer.errors import InputError

HELLO = Prompt("1", "hello", "", "print ('x')")
START = "<|im_start|>assistant\n<think>\n\n</think>\n\n"


def test_the_template_ends_at_the_assistant_start_without_thinking(tokenizer):
    assert render(tokenizer, HELLO) == f"<|im_start|>user\nhello<|im_end|>\n{START}"


def test_the_system_message_comes_first(tokenizer):
    text = render(tokenizer, HELLO, system="Be brief")
    assert text.startswith("<|im_start|>system\nBe brief<|im_end|>\n<|im_start|>user\nhello")


def test_the_answer_follows_without_a_closing_token(tokenizer):
    text = render(tokenizer, HELLO, with_answer=True)
    assert text == render(tokenizer, HELLO) + "print ('x')"
    assert render(tokenizer, HELLO, chat=False, with_answer=True) == "helloprint ('x')"


def test_a_missing_answer_is_refused(tokenizer):
    with pytest.raises(InputError, match="'7' has no answer"):
        render(tokenizer, Prompt("7", "x"), with_answer=True)


def test_a_tokenizer_without_chat_template_needs_chat_false(new_tokenizer):
    plain = new_tokenizer(chat_template=None)
    with pytest.raises(InputError, match="set chat to false"):
        render(plain, HELLO)
    assert render(plain, HELLO, chat=False) == "hello"


def test_a_template_that_refuses_the_system_message_says_so(tokenizer):
    with pytest.raises(InputError, match="no system; leave out the system message"):
        render(tokenizer, HELLO, system="refuse")


def test_plain_text_gets_the_bos_token_only_where_the_tokenizer_adds_it(new_tokenizer):
    from tokenizers.processors import TemplateProcessing

    with_bos = new_tokenizer(bos_token="<|reserved|>")
    assert render(with_bos, HELLO, chat=False) == "hello"
    with_bos.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|reserved|> $A", special_tokens=[("<|reserved|>", with_bos.bos_token_id)]
    )
    ids = token_ids(with_bos, render(with_bos, HELLO, chat=False))
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


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_is_on_the_left_whatever_the_tokenizer_prefers(new_tokenizer, side):
    mine = new_tokenizer(padding_side=side)
    tokens, mask = tokenize(mine, ["a formula and a function", "x"])
    assert tokens.shape == mask.shape
    assert mask[0].all()
    assert mask[1].tolist() == [False] * (tokens.shape[1] - 1) + [True]
    assert tokens[1, :-1].eq(mine.pad_token_id).all()
    assert mine.padding_side == side


def test_a_padded_row_holds_the_ids_of_the_row_alone(tokenizer):
    texts = ["x", "a formula", render(tokenizer, HELLO), "the naïve €"]
    tokens, mask = tokenize(tokenizer, texts)
    for row, real, text in zip(tokens, mask, texts, strict=True):
        assert row[real].tolist() == token_ids(tokenizer, text)
        assert tokenizer.decode(row[real]) == text


def test_padding_is_marked_by_place_even_where_the_text_holds_padding_tokens(tokenizer):
    tokens, mask = tokenize(tokenizer, ["<|endoftext|>x", "hello formula function"])
    assert int(mask[0].sum()) == 2
    assert tokens[0, -2] == tokenizer.pad_token_id


def test_without_padding_token_eos_pads_and_without_both_zero(new_tokenizer):
    assert pad_left([[5], [6, 7]], new_tokenizer(pad_token=None))[0][0, 0] == 2
    assert pad_left([[5], [6, 7]], new_tokenizer(pad_token=None, eos_token=None))[0][0, 0] == 0


@pytest.mark.parametrize("rows", [[], [[]], [[1], []]])
def test_empty_rows_are_refused(tokenizer, rows):
    with pytest.raises(InputError, match="at least one token"):
        pad_left(rows, tokenizer)


def test_tokenizing_leaves_the_tokenizer_as_it_was(new_tokenizer):
    mine = new_tokenizer()
    before = copy.deepcopy(mine.init_kwargs), mine.backend_tokenizer.to_str(), len(mine)
    list(token_batches(mine, [HELLO] * 3, system="s", with_answer=True))
    assert (mine.init_kwargs, mine.backend_tokenizer.to_str(), len(mine)) == before


def test_batches_keep_the_order_and_cover_every_prompt_once(tokenizer):
    prompts = [Prompt(str(i), "hello " * (i % 3 + 1)) for i in range(7)]
    batches = list(token_batches(tokenizer, prompts, 3))
    assert [len(b.tokens) for b in batches] == [3, 3, 1]
    assert [p for b in batches for p in b.prompts] == prompts
    assert all(b.answer_start is None and not answer_span(b).any() for b in batches)
    rows = [row[m].tolist() for b in batches for row, m in zip(b.tokens, b.mask, strict=True)]
    assert rows == [token_ids(tokenizer, render(tokenizer, p)) for p in prompts]


def test_the_answer_span_holds_exactly_the_answers_tokens(tokenizer):
    prompts = [HELLO, Prompt("2", "a much longer formula", "", "y"), Prompt("3", "x", "", "")]
    (batch,) = token_batches(tokenizer, prompts, with_answer=True)
    span = answer_span(batch)
    for i, prompt in enumerate(prompts):
        assert batch.tokens[i][span[i]].tolist() == token_ids(tokenizer, prompt.answer)
        head = batch.tokens[i][batch.mask[i] & ~span[i]].tolist()
        assert head == token_ids(tokenizer, render(tokenizer, prompt))


def test_an_answer_that_would_merge_with_the_prompt_is_kept_apart(tokenizer):
    prompt = Prompt("1", "form", "", "ula")
    whole = token_ids(tokenizer, "formula")
    (batch,) = token_batches(tokenizer, [prompt], chat=False, with_answer=True)
    assert batch.tokens[0].tolist() == token_ids(tokenizer, "form") + token_ids(tokenizer, "ula")
    assert batch.tokens[0].tolist() != whole


def test_shapes_are_checked_in_the_tests():
    with pytest.raises(Exception, match=r"(?i)type|shape"):
        Batch(torch.zeros(2, 3, dtype=torch.long), torch.zeros(2, dtype=torch.bool))
