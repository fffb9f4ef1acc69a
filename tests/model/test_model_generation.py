"""Generation in left-padded batches is generation one by one, for both classes."""

from __future__ import annotations

import pytest
import torch
from model_batches import hugging_face, left_padded, rows

from saelens_steer.errors import InputError
from saelens_steer.model import generate, stop_token_ids
from saelens_steer.model.generation import _pad_after_stop

N = 12


@pytest.fixture(params=["random_model", "random_bridge"])
def model(request):
    return request.getfixturevalue(request.param)


def _alone(model, prompt, **options):
    return generate(model, prompt, torch.ones_like(prompt).bool(), N, **options)[0]


def _same(batched, alone):
    """Equal, but for the padding a batch goes on with once a row is done."""
    return torch.equal(batched[: len(alone)], alone) and (batched[len(alone) :] == 0).all()


@pytest.mark.parametrize("pad", [0, 7, 300])
def test_padded_rows_continue_as_they_would_alone(model, pad):
    new = generate(model, *left_padded(rows(), pad), N)
    assert all(_same(row, _alone(model, p)) for row, p in zip(new, rows(), strict=True))


def test_greedy_tokens_are_those_of_hugging_face(model, random_folder):
    hf = hugging_face(random_folder)
    for prompt in rows():
        theirs = hf.generate(
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=N, do_sample=False
        )[0, prompt.shape[1] :]
        assert _same(_alone(model, prompt), theirs[: len(_alone(model, prompt))])


def test_prompts_that_begin_with_the_padding_id_are_read_whole(model):
    prompts = [torch.cat([torch.tensor([[0, 0]]), p], 1) for p in rows()]
    own = model.tokenizer
    new = generate(model, *left_padded(prompts), N)
    assert model.tokenizer is own
    assert own.pad_token == "<|endoftext|>"
    for row, prompt in zip(new, prompts, strict=True):
        logits = model(prompt, attention_mask=torch.ones_like(prompt))[0, -1]
        assert row[0] == logits.argmax()
        assert _same(row, _alone(model, prompt))


def test_hooks_act_on_the_prompt_and_on_every_new_token(model):
    shapes = []

    def push(x, hook):
        shapes.append(tuple(x.shape[:2]))
        return x + 3.0

    tokens, mask = left_padded(rows())
    plain = generate(model, tokens, mask, N)
    with model.hooks(fwd_hooks=[("blocks.2.hook_resid_pre", push)]):
        pushed = generate(model, tokens, mask, N)
        alone = [_alone(model, p) for p in rows()]
    assert shapes[0] == (4, 9)
    assert set(shapes[1 : pushed.shape[1]]) == {(4, 1)}
    assert not torch.equal(pushed, plain)
    assert all(_same(row, one) for row, one in zip(pushed, alone, strict=True))
    assert torch.equal(generate(model, tokens, mask, N), plain)


def test_hooks_added_by_hand_act_too(model):
    tokens, mask = left_padded(rows())
    plain = generate(model, tokens, mask, N)
    model.add_hook("blocks.2.hook_resid_pre", lambda x, hook: x + 3.0)
    try:
        assert not torch.equal(generate(model, tokens, mask, N), plain)
    finally:
        model.reset_hooks()


def test_a_row_that_stops_is_padded_while_the_others_go_on(model):
    tokens, mask = left_padded(rows())
    stop, step = stop_token_ids(model)[0], []

    def stop_first_row(logits, hook):
        step.append(1)
        if len(step) == 3:
            logits[0, -1, stop] = 1e6
        return logits

    plain = generate(model, tokens, mask, N)
    with model.hooks(fwd_hooks=[("unembed.hook_out", stop_first_row)]):
        new = generate(model, tokens, mask, N)
    assert torch.equal(new[1:], plain[1:])
    assert torch.equal(new[0, :2], plain[0, :2])
    assert new[0, 2] == stop
    assert (new[0, 3:] == 0).all()


def test_every_stop_token_of_the_checkpoint_stops(model):
    tokens, mask = left_padded(rows())
    for stop in stop_token_ids(model):

        def stop_all(logits, hook, stop=stop):
            logits[:, -1, stop] = 1e6
            return logits

        with model.hooks(fwd_hooks=[("unembed.hook_out", stop_all)]):
            assert generate(model, tokens, mask, N).tolist() == [[stop]] * 4


def test_sampling_is_repeatable_by_seed_and_leaves_torchs_state_alone(model):
    tokens, mask = left_padded(rows())
    state = torch.get_rng_state()
    first, again, other = (generate(model, tokens, mask, N, 1.0, (seed,)) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_prompt_given_is_not_changed(model):
    tokens, mask = left_padded(rows())
    before = tokens.clone(), mask.clone()
    generate(model, tokens, mask, 2)
    assert torch.equal(tokens, before[0])
    assert torch.equal(mask, before[1])


def test_padding_on_the_right_is_refused(model):
    tokens, mask = left_padded(rows())
    with pytest.raises(InputError, match="left-padded"):
        generate(model, tokens, mask.flip(1), 2)
    with pytest.raises(InputError, match="left-padded"):
        generate(model, tokens, torch.zeros_like(mask), 2)


def test_more_tokens_than_the_context_holds_are_refused(model):
    tokens, mask = left_padded(rows())
    with pytest.raises(InputError, match="n_ctx"):
        generate(model, tokens, mask, model.cfg.n_ctx)


def test_padding_follows_the_first_stop_token_only():
    new = torch.tensor([[5, 2, 2, 6], [2, 5, 5, 5], [5, 5, 5, 5]])
    assert _pad_after_stop(new, [2], 0).tolist() == [[5, 2, 0, 0], [2, 0, 0, 0], [5, 5, 5, 5]]
