"""log p(target | not excluded): what competition between tokens does to it, and what does not."""

from __future__ import annotations

import math

import pytest
import torch
from checkpoints import small_tokenizer

import saelens_steer as ss
from saelens_steer.errors import InputError
from saelens_steer.metrics import metric_provenance, resolve_metrics

TOKENIZER = small_tokenizer()
D_VOCAB = len(TOKENIZER) + 8
LATEX, FENCES = [3, 4, 5], [7, 9]


def noise(rows: int = 6, scale: float = 4.0) -> torch.Tensor:
    return scale * torch.randn(rows, D_VOCAB, generator=torch.Generator().manual_seed(3))


def of(metric: object, logits: torch.Tensor) -> torch.Tensor:
    (found,) = resolve_metrics([metric], TOKENIZER, D_VOCAB)
    return found.of(logits, baseline=logits)


@pytest.mark.parametrize("gain", [-30.0, -1.0, 2.0, 15.0, 60.0])
def test_a_pure_gain_of_the_excluded_tokens_changes_nothing_but_the_margin_and_log_prob(gain):
    before, after = noise(), noise()
    after[:, FENCES] += gain
    given = {"target": LATEX, "name": "m"}
    kept = ss.log_prob(**given, excluding=FENCES)
    assert torch.equal(of(kept, after), of(kept, before))
    if gain > 50:
        for competing in (ss.log_prob(**given), ss.margin(**given)):
            assert bool((of(competing, after) < of(competing, before) - 1).all())


def test_it_is_log_p_of_the_target_minus_log_of_what_is_not_excluded():
    p = noise().double().softmax(-1)
    expected = (p[:, LATEX].sum(-1) / (1 - p[:, FENCES].sum(-1))).log()
    found = of(ss.log_prob(target=LATEX, excluding=FENCES), noise())
    torch.testing.assert_close(found, expected.float())
    plain = of(ss.log_prob(target=LATEX), noise())
    torch.testing.assert_close(plain, p[:, LATEX].sum(-1).log().float())


def test_it_is_exact_where_the_excluded_tokens_have_almost_all_probability():
    logits = torch.zeros(1, D_VOCAB)
    logits[:, FENCES] = 80.0  # 1 − p of them is 0 in float32
    found = of(ss.log_prob(target=LATEX, excluding=FENCES), logits)
    assert float(found) == pytest.approx(math.log(3 / (D_VOCAB - 2)), rel=1e-6)


def test_it_falls_where_other_tokens_gain():
    after = noise()
    after[:, 20:] += 3
    metric = ss.log_prob(target=LATEX, excluding=FENCES)
    assert bool((of(metric, after) < of(metric, noise()) - 0.1).all())


def test_target_and_excluded_tokens_may_not_overlap():
    with pytest.raises(InputError, match=r"target and excluding share .*: remove (it|them)"):
        of(ss.log_prob(target=LATEX, excluding=[9, 5]), noise())


def test_the_provenance_names_its_sets():
    metric = {"log_prob": {"name": "m", "target": {"ids": LATEX}, "excluding": {"ids": FENCES}}}
    own = metric_provenance([metric], TOKENIZER, D_VOCAB)["m"]
    assert (own["n_target"], own["n_excluding"], len(own["excluding"])) == (3, 2, 2)
    assert "n_other" not in own


def test_it_is_the_outcome_of_a_sweep(random_model):
    sae_free = {"caa": torch.ones(random_model.cfg.d_model)}
    metric = ss.log_prob(target=[3], excluding=[7], name="m")
    how = {"hook_name": "blocks.1.hook_resid_pre", "alphas": [1.0], "n_controls": 2}
    found = ss.sweep(random_model, None, [[5, 6]], directions=sae_free, metrics=[metric], **how)
    assert found.metrics == ("m",) and found.rows["m"].notna().all()
