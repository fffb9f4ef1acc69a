"""causal.py: each score against its definition, computed from hooked passes."""

from dataclasses import replace

import pytest
import torch

from saelens_steer.directions.causal import TOP_TOKENS, attribution, direct_logit, pushed_scores
from saelens_steer.errors import InputError
from saelens_steer.metrics import LogitMetric
from saelens_steer.model import direct_logits, last_token_logits
from saelens_steer.steering import add, steered

HOOK = "blocks.4.hook_resid_pre"


def margins(scoring, vector=None):
    """The outcome of each prompt, one whole hooked pass."""
    tokens, mask = scoring.measurement.unsteered_pass.padded
    model = scoring.measurement.model
    if vector is None:
        logits = last_token_logits(model, tokens, mask)
    else:
        with steered(model, add(vector), HOOK, mask):
            logits = last_token_logits(model, tokens, mask)
    return scoring.measurement.outcome.of(logits, baseline=logits), logits


def test_attribution_is_the_slope_of_the_outcome_along_the_decoder_row(scoring, sae):
    found = attribution(scoring, [3, 17])
    for feature, slope in zip([3, 17], found.tolist(), strict=True):
        up, down = (margins(scoring, h * sae.W_dec[feature].detach())[0] for h in (0.05, -0.05))
        assert float((up - down).mean()) / 0.1 == pytest.approx(slope, rel=0.05, abs=2e-4)


def test_direct_logit_reads_the_unembedding_of_the_decoder_row(scoring, sae):
    target, other = scoring.measurement.outcome.sets
    lens = direct_logits(scoring.measurement.model, sae.W_dec[[5]].detach())[0]
    want = lens[target].mean() - lens[other].mean()
    assert torch.allclose(direct_logit(scoring, [5])[0], want)


def test_direct_logit_takes_a_margin(scoring):
    first = LogitMetric("other", lambda logits, baseline: logits[:, 0])
    measurement = replace(scoring.measurement, metric_specs=("kl",))
    assert first.sets is None
    with pytest.raises(InputError, match="kl is not a margin"):
        direct_logit(replace(scoring, measurement=measurement), [5])


def test_output_score_and_confidence_are_those_of_a_hooked_pass(scoring, sae):
    push, feature = 20.0, 9
    found = pushed_scores(scoring, [2, feature], push).loc[feature]
    row = sae.W_dec[feature].detach()
    _, before = margins(scoring)
    _, after = margins(scoring, push * row / row.norm())
    tokens = direct_logits(scoring.measurement.model, row[None])[0].topk(TOP_TOKENS).indices
    p = after.softmax(-1)
    best = p[:, tokens].max(1).values
    rank = (p > best[:, None]).sum(1)
    output = ((1 - rank / p.shape[1]) * best).mean()
    sure = [-x.log_softmax(-1).topk(TOP_TOKENS).values.mean() for x in (after, before)]
    assert found["output_score"] == pytest.approx(float(output), abs=1e-5)
    assert found["token_confidence"] == pytest.approx(float(sure[0] - sure[1]), abs=1e-3)


def test_the_outcome_favours_the_side_whose_prompts_have_more_of_it(scoring):
    assert (
        scoring.outcome_sign == -1
    )  # the margin is that of LaTeX delimiters, the positive side code
    assert replace(scoring, positive="math", negative="code").outcome_sign == 1


def test_signed_scores_rank_each_side_by_what_moves_the_outcome_its_way(find, scoring):
    found = find.selection("attribution", 5)
    values = dict(zip(range(64), attribution(scoring, range(64)).tolist(), strict=True))
    live = [int(f) for f in found.scores.index]
    order = sorted(live, key=lambda f: values[f])
    assert found.candidates["code"] == [f for f in order if values[f] < 0][:5]
    assert found.candidates["math"] == [f for f in reversed(order) if values[f] > 0][:5]
    assert "attribution" in found.scores


def test_unsigned_scores_rank_the_shortlist_of_each_side(find):
    found = find.selection("output_score", 3)
    short = find.selection("mean_difference", 8).candidates
    for side, own in found.candidates.items():
        assert set(own) <= set(short[side])
        assert list(found.scores["output_score"].loc[own]) == sorted(
            found.scores["output_score"].loc[own], reverse=True
        )


def test_a_planted_row_is_found_first_by_what_it_does(find, scoring, sae):
    import copy

    from saelens_steer.directions import DirectionFinder

    model = scoring.measurement.model
    (target, rest), W_U = scoring.measurement.outcome.sets, model.unembed.W_U
    planted = (model.ln_final.w * (W_U[:, target].mean(1) - W_U[:, rest].mean(1))).detach()
    other, live = copy.deepcopy(sae), int(find.selection("mean_difference", 1).scores.index[4])
    other.W_dec.data[live] = planted / planted.norm()
    again = DirectionFinder(other, find.activations, find.spec, replace(scoring, sae=other))
    assert again.selection("direct_logit", 3).candidates["math"][0] == live


def test_a_score_may_say_which_part_of_the_prompts_it_reads(find):
    there = find.selection("mean_difference@answer", 4)
    here = find.selection("mean_difference@assistant_start", 4)
    assert there.at == "answer"
    assert here.at == "assistant_start"
    assert there.candidates != here.candidates
