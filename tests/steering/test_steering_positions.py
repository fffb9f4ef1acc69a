"""Positions mean the same with and without a KV cache."""

import pytest
import torch
from model.model_batches import left_padded, rows

from saelens_steer.errors import InputError
from saelens_steer.model import last_token_logits
from saelens_steer.steering import Edit, add, columns, steered
from saelens_steer.steering.positions import check_positions

HOOK = "blocks.2.hook_resid_pre"
KINDS = ("all", "prompt", "generated", "last")


@pytest.fixture(scope="module")
def direction(random_model):
    return 3.0 * torch.randn(random_model.cfg.d_model, generator=torch.Generator().manual_seed(1))


def generated(model, tokens, **options):
    return model.generate(
        tokens, max_new_tokens=6, do_sample=False, stop_at_eos=False, verbose=False, **options
    )


@pytest.mark.parametrize("kind", KINDS)
def test_generation_with_and_without_a_kv_cache_agree(random_model, direction, kind):
    tokens, _ = left_padded(rows()[:3])
    outputs, counts = [], []
    for cached in (True, False):
        with steered(random_model, add(direction), HOOK, kind) as receipt:
            outputs.append(generated(random_model, tokens, use_past_kv_cache=cached))
        counts.append(receipt.positions)
    assert torch.equal(*outputs)
    assert not torch.equal(outputs[0], generated(random_model, tokens))
    if kind in ("prompt", "last"):
        assert counts[0] == {"prompt": 9 + 4 + 6, "last": 3}[kind]


@pytest.mark.parametrize("kind", ("prompt", "last"))
def test_a_loop_of_growing_prompts_steers_the_same_positions(random_model, direction, kind):
    prompt = rows()[0]
    with steered(random_model, add(direction), HOOK, kind):
        expected = generated(random_model, prompt)
    grown = prompt
    with steered(random_model, add(direction), HOOK, kind), torch.no_grad():
        for _ in range(6):
            grown = torch.cat([grown, random_model(grown)[:, -1:].argmax(-1)], dim=1)
    assert torch.equal(grown, expected)


def test_last_touches_only_the_last_prompt_token(random_model, direction):
    tokens, mask = left_padded(rows())
    by_hand = torch.zeros_like(mask)
    by_hand[:, -1] = True
    with steered(random_model, add(direction), HOOK, "last"):
        last = last_token_logits(random_model, tokens, mask)
    with steered(random_model, add(direction), HOOK, by_hand):
        torch.testing.assert_close(last_token_logits(random_model, tokens, mask), last)


def test_a_mask_chooses_positions_and_never_padding(random_model, direction):
    tokens, mask = left_padded(rows())
    everywhere = torch.ones_like(mask)
    with steered(random_model, add(direction), HOOK, everywhere) as receipt:
        last_token_logits(random_model, tokens, mask)
    assert receipt.positions == int(mask.sum())


def test_an_empty_mask_is_an_error(random_model, direction):
    tokens, mask = left_padded(rows())
    with (
        pytest.raises(InputError, match="selected no position"),
        steered(random_model, add(direction), HOOK, torch.zeros_like(mask)),
    ):
        last_token_logits(random_model, tokens, mask)


def test_generated_alone_leaves_the_prompt_and_its_first_token(random_model, direction):
    prompt = rows()[0]
    plain = generated(random_model, prompt)
    with steered(random_model, add(direction), HOOK, "generated"):
        pushed = generated(random_model, prompt)
    n = prompt.shape[1]
    assert pushed[0, n] == plain[0, n]
    assert not torch.equal(pushed, plain)


def test_a_second_prompt_in_one_context_raises_where_it_would_be_ambiguous(random_model, direction):
    first, second = rows()[0], rows(seed=5)[2]
    with (
        pytest.raises(InputError, match="open a new context"),
        steered(random_model, add(direction), HOOK, "last"),
    ):
        random_model(first)
        random_model(second)
    with (
        pytest.raises(InputError, match="open a new context"),
        steered(random_model, add(direction), HOOK, "last"),
    ):
        random_model(first)
        random_model(torch.cat([rows(seed=7)[0], rows(seed=7)[3]], dim=1))  # one longer, unrelated


def test_all_may_see_one_prompt_after_another(random_model, direction):
    first, second = rows()[0], rows()[2]
    with steered(random_model, add(direction), HOOK, "all"), torch.no_grad():
        random_model(first)
        together = random_model(second)
    with steered(random_model, add(direction), HOOK, "all"), torch.no_grad():
        assert torch.equal(random_model(second), together)


def test_columns_are_absolute():
    assert columns("last", 5, 0, 5).tolist() == [False] * 4 + [True]
    assert columns("last", 5, 5, 1).tolist() == [False]
    assert columns("generated", 5, 5, 1).tolist() == [True]
    assert columns("generated", 5, 0, 7).tolist() == [False] * 5 + [True] * 2
    assert columns("prompt", 5, 0, 7).tolist() == [True] * 5 + [False] * 2


def test_unknown_positions_are_refused_by_name():
    with pytest.raises(
        InputError, match=r"all, prompt, generated, last or a boolean .*not 'first'"
    ):
        check_positions("first")


def test_an_edit_sees_whole_residuals(random_model):
    shapes = []
    spy = Edit("spy", lambda x: shapes.append(tuple(x.shape)) or x)
    with steered(random_model, spy, HOOK):
        random_model(rows()[0])
    assert shapes == [(1, 9, random_model.cfg.d_model)]


@pytest.mark.parametrize("kind", ("all", "prompt", "last"))
def test_a_transformer_bridge_is_steered_alike(random_bridge, random_model, direction, kind):
    tokens, mask = left_padded(rows())
    with steered(random_model, add(direction), HOOK, kind):
        expected = last_token_logits(random_model, tokens, mask)
    with steered(random_bridge, add(direction), HOOK, kind) as receipt:
        ours = last_token_logits(random_bridge, tokens, mask)
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=0)
    assert receipt.positions == (4 if kind == "last" else int(mask.sum()))
