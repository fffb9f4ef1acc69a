"""Laws of additive steering."""

from pathlib import Path

import pytest
import torch
from hugging import hugging_face, last_logits, resid_pre_changed
from model.model_batches import left_padded, rows

import saelens_steer.model
from saelens_steer.errors import InputError
from saelens_steer.model import generate, last_token_logits
from saelens_steer.steering import add, per_row, steered

HOOK = "blocks.2.hook_resid_pre"


@pytest.fixture(scope="module")
def direction(random_model):
    return torch.randn(random_model.cfg.d_model, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def padded():
    return left_padded(rows())


def test_adding_with_alpha_zero_changes_no_bit(random_model, direction, padded):
    plain = last_token_logits(random_model, *padded)
    with steered(random_model, add(direction, 0.0), HOOK):
        assert torch.equal(last_token_logits(random_model, *padded), plain)


def test_steered_logits_equal_a_hugging_face_hook_on_left_padded_batches(
    random_model, random_folder, direction, padded
):
    reference = hugging_face(random_folder)
    with resid_pre_changed(reference, 2, lambda x: x + 3.0 * direction):
        expected = last_logits(reference, *padded)
    with steered(random_model, add(direction, 3.0), HOOK):
        ours = last_token_logits(random_model, *padded)
    assert (ours - last_token_logits(random_model, *padded)).abs().max() > 0.1
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=0)


def test_steering_the_shipped_model_equals_a_hugging_face_hook_too(tiny_model):
    weights = Path(saelens_steer.model.__file__).parent / "tiny/weights"
    push = torch.randn(tiny_model.cfg.d_model, generator=torch.Generator().manual_seed(2))
    reference, batch = hugging_face(weights), left_padded(rows())
    with resid_pre_changed(reference, 4, lambda x: x + 4.0 * push):
        expected = last_logits(reference, *batch)
    with steered(tiny_model, add(push, 4.0), "blocks.4.hook_resid_pre"):
        ours = last_token_logits(tiny_model, *batch)
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=0)


def test_a_whole_forward_pass_is_steered_too(random_model, random_folder, direction):
    tokens = rows()[0]
    reference = hugging_face(random_folder)
    with resid_pre_changed(reference, 2, lambda x: x + 3.0 * direction), torch.no_grad():
        expected = reference(tokens).logits
    with steered(random_model, add(direction, 3.0), HOOK), torch.no_grad():
        ours = random_model(tokens)
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=0)


def test_left_padding_does_not_matter(random_model, direction, padded):
    with steered(random_model, add(direction, 3.0), HOOK):
        together = last_token_logits(random_model, *padded)
    for row, prompt in enumerate(rows()):
        with steered(random_model, add(direction, 3.0), HOOK):
            alone = last_token_logits(random_model, prompt, torch.ones_like(prompt).bool())
        torch.testing.assert_close(together[row], alone[0], atol=1e-5, rtol=0)


def test_each_row_can_have_its_own_vector_and_strength(random_model, direction, padded):
    vectors = torch.stack([direction, -direction, direction.flip(0), 0 * direction])
    alphas = torch.tensor([1.0, 2.0, 3.0, 4.0])
    with steered(
        random_model, per_row([add(*one) for one in zip(vectors, alphas, strict=True)]), HOOK
    ):
        together = last_token_logits(random_model, *padded)
    for row in range(4):
        with steered(random_model, add(vectors[row], float(alphas[row])), HOOK):
            alone = last_token_logits(random_model, *padded)[row]
        torch.testing.assert_close(together[row], alone, atol=1e-6, rtol=0)


def test_edits_are_applied_in_the_order_given_and_adding_commutes(random_model, direction, padded):
    first, second = add(direction, 1.0), add(direction.flip(0), 2.0)
    with steered(random_model, [first, second], HOOK):
        both = last_token_logits(random_model, *padded)
    with steered(random_model, add(direction + 2.0 * direction.flip(0)), HOOK):
        torch.testing.assert_close(last_token_logits(random_model, *padded), both)


def test_opposite_pushes_cancel(random_model, direction, padded):
    plain = last_token_logits(random_model, *padded)
    with steered(random_model, [add(direction, 2.0), add(direction, -2.0)], HOOK):
        torch.testing.assert_close(last_token_logits(random_model, *padded), plain)


def test_the_hooks_are_gone_afterwards_and_after_an_error(random_model, direction, padded):
    plain = last_token_logits(random_model, *padded)
    with pytest.raises(ZeroDivisionError), steered(random_model, add(direction, 9.0), HOOK):
        raise ZeroDivisionError
    assert torch.equal(last_token_logits(random_model, *padded), plain)
    assert not random_model.embed._forward_pre_hooks


def test_someone_elses_hooks_stay(random_model, direction, padded):
    seen = []
    random_model.add_hook(HOOK, lambda x, hook: seen.append(1))
    try:
        with steered(random_model, add(direction), HOOK):
            last_token_logits(random_model, *padded)
        last_token_logits(random_model, *padded)
    finally:
        random_model.reset_hooks()
    assert len(seen) == 2


def test_unknown_hooks_and_layers_are_refused_before_any_pass(random_model, direction):
    for hook in ("blocks.2.hook_resid_pree", "blocks.9.hook_resid_pre", "nonsense"):
        with (
            pytest.raises(InputError, match="hook"),
            steered(random_model, add(direction), hook),
        ):
            pytest.fail("entered the context")


def test_a_hook_that_is_never_reached_is_an_error(random_model, direction):
    with (
        pytest.raises(InputError, match="no forward pass reached"),
        steered(random_model, add(direction), HOOK),
    ):
        pass


def test_a_direction_of_the_wrong_width_or_not_finite_is_refused(random_model, padded):
    with (
        pytest.raises(InputError, match="33 entries"),
        steered(random_model, add(torch.ones(33)), HOOK),
    ):
        last_token_logits(random_model, *padded)
    with pytest.raises(InputError, match="finite"):
        add(torch.tensor([1.0, torch.nan]))


def test_the_receipt_counts_positions_without_padding_and_measures_the_push(
    random_model, direction, padded
):
    tokens, mask = padded
    with steered(random_model, add(direction, 2.0), HOOK) as receipt:
        last_token_logits(random_model, tokens, mask)
    assert receipt.positions == int(mask.sum())
    _, cache = random_model.run_with_cache(tokens, attention_mask=mask.long())
    expected = (2.0 * direction.norm() / cache[HOOK].norm(dim=-1))[mask].mean()
    assert receipt.rel_norm == pytest.approx(float(expected), rel=1e-4)


def test_generation_is_steered_at_every_step(random_model, random_folder, direction):
    tokens, mask = left_padded(rows()[:2])
    reference = hugging_face(random_folder)
    with resid_pre_changed(reference, 2, lambda x: x + 3.0 * direction):
        expected = reference.generate(
            tokens, attention_mask=mask.long(), max_new_tokens=8, do_sample=False
        )[:, tokens.shape[1] :]
    with steered(random_model, add(direction, 3.0), HOOK) as receipt:
        new = generate(random_model, tokens, mask, 8)
    assert torch.equal(new, expected[:, : new.shape[1]])
    assert receipt.passes == new.shape[1]
