"""Margin and KL: algebra that must hold exactly."""

from __future__ import annotations

import math

import pytest
import torch

from saelens_steer.metrics import kl
from saelens_steer.metrics.metric import logit_margin


def noise(seed: int, rows: int = 5, d_vocab: int = 50, scale: float = 3.0) -> torch.Tensor:
    return torch.randn(rows, d_vocab, generator=torch.Generator().manual_seed(seed)) * scale


def test_the_margin_is_the_best_target_minus_the_best_other():
    logits = torch.tensor([[1.0, 5.0, 2.0, 9.0], [4.0, 0.0, -1.0, 9.0]])
    assert logit_margin(logits, [0, 1], [2]).tolist() == [3.0, 5.0]


def test_exchanging_the_sets_changes_the_sign():
    logits = noise(0)
    assert torch.equal(
        logit_margin(logits, [1, 2], [3, 4, 5]), -logit_margin(logits, [3, 4, 5], [1, 2])
    )


def test_a_constant_added_to_all_logits_leaves_margin_and_kl():
    a, b = noise(1), noise(2)
    torch.testing.assert_close(logit_margin(a + 8, [1, 2], [3]), logit_margin(a, [1, 2], [3]))
    torch.testing.assert_close(kl(b - 4, baseline=a + 8), kl(b, baseline=a))


def test_tokens_in_neither_set_do_not_count():
    logits = noise(3)
    changed = logits.clone()
    changed[:, 10:] += 100
    assert torch.equal(logit_margin(logits, [0, 1], [2, 3]), logit_margin(changed, [0, 1], [2, 3]))


def test_ids_may_be_a_tensor():
    logits = noise(4)
    assert torch.equal(
        logit_margin(logits, torch.tensor([1, 2]), (3,)), logit_margin(logits, [1, 2], [3])
    )


def test_results_are_float32_one_per_row():
    half = noise(5).to(torch.bfloat16)
    for values in (logit_margin(half, [1], [2]), kl(half, baseline=half)):
        assert values.dtype == torch.float32
        assert values.shape == (5,)


def test_kl_of_equal_logits_is_exactly_zero():
    for scale in (0.0, 1.0, 100.0):
        logits = noise(6, d_vocab=1000, scale=scale)
        assert torch.equal(kl(logits.clone(), baseline=logits), torch.zeros(5))


def test_kl_is_never_negative_and_grows_with_the_push():
    base = noise(7, rows=200)
    for seed in range(20):
        assert (kl(base + noise(seed, rows=200, scale=1e-4), baseline=base) >= 0).all()
    push = noise(8, rows=200)
    assert (kl(base + push, baseline=base) > kl(base + 0.1 * push, baseline=base)).all()


def test_kl_agrees_with_double_precision_and_has_a_direction():
    p, q = noise(9), noise(10)
    exact = (
        p.double().softmax(-1) * (p.double().log_softmax(-1) - q.double().log_softmax(-1))
    ).sum(-1)
    torch.testing.assert_close(kl(q, baseline=p).double(), exact, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(kl(q, baseline=p), kl(p, baseline=q))


def test_kl_of_a_coin_is_known():
    fair, biased = torch.tensor([[0.0, 0.0]]), torch.tensor([[math.log(3.0), 0.0]])
    expected = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert kl(biased, baseline=fair).item() == pytest.approx(expected, abs=1e-6)


def test_a_token_ruled_out_by_the_baseline_adds_nothing():
    p = torch.tensor([[0.0, 0.0, -torch.inf]])
    assert kl(p, baseline=p).item() == 0
    assert kl(torch.zeros(1, 3), baseline=p).item() == pytest.approx(math.log(1.5), abs=1e-6)
    assert kl(p, baseline=torch.zeros(1, 3)).item() == torch.inf


def test_logits_are_left_as_they_are():
    a, b = noise(11), noise(12)
    before = a.clone(), b.clone()
    logit_margin(a, [1], [2])
    kl(b, baseline=a)
    assert torch.equal(a, before[0])
    assert torch.equal(b, before[1])
