"""Scores of labels, against chance."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cases import Judge, case
from scipy.stats import beta

from saelens_steer.labels.labeller import HeldOutExamples, LabelError, Name, TextPair
from saelens_steer.labels.labelling import label_all
from saelens_steer.labels.scores import (
    against_chance,
    causal_score,
    detection_score,
    steering_effect,
)

NAME = Name("fruit")


def test_the_steering_effect_is_the_weighted_share_of_distinct_tokens_and_texts():
    texts = [[1, 2, 3], [1, 2, 3], [4, 4]]
    assert steering_effect(texts) == pytest.approx(0.6 * 4 / 8 + 0.4 * 2 / 3)


def test_the_steering_effect_is_1_without_repetition_and_small_in_a_loop():
    assert steering_effect([[1, 2], [3]]) == 1
    assert steering_effect([[5] * 50] * 10) == pytest.approx(0.6 / 500 + 0.04)
    assert steering_effect([[], []]) == pytest.approx(0.2)
    assert steering_effect([]) is None


def test_a_score_has_the_exact_binomial_interval():
    score = against_chance([True] * 17 + [False] * 3)
    assert (score.correct, score.n, score.accuracy) == (17, 20, 0.85)
    assert score.ci_low == pytest.approx(beta.ppf(0.025, 17, 4))
    assert score.ci_high == pytest.approx(beta.ppf(0.975, 18, 3))
    assert score.p_value == pytest.approx(1351 / 2**20)  # 1 + 20 + 190 + 1140 of 2**20


def test_a_perfect_judge_scores_1_and_an_inverted_one_0():
    for knows, want in ((lambda t: "fruit" in t, 1.0), (lambda t: "fruit" not in t, 0.0)):
        judge, trials = Judge(knows), case().trials
        assert detection_score(judge, NAME, trials).accuracy == want
        assert causal_score(judge, NAME, trials).accuracy == want


@pytest.mark.parametrize("start", [True, False])
def test_alternating_answers_are_at_chance(start):
    class InTurn(Judge):
        def steered(self, name, pairs):
            return [(i % 2 == 0) == start for i in range(len(pairs))]

    found = [causal_score(InTurn(), NAME, _of(i).trials) for i in range(20)]
    assert 0.4 < sum(score.accuracy for score in found) / 20 < 0.6
    assert len({score.accuracy for score in found}) > 2


def _of(i: int):
    """A case whose steered texts differ with `i`."""
    own = case()
    pairs = tuple(replace(pair, steered=f"{pair.steered} {i}") for pair in own.trials.pairs)
    return replace(own, trials=replace(own.trials, pairs=pairs))


def test_with_surplus_firing_contexts_weak_ones_are_used_too():
    seen: list[str] = []

    class Noting(Judge):
        def firing(self, name, contexts):
            seen.extend(contexts)
            return set()

    trials = replace(case().trials, silent=case().trials.silent[:3])
    detection_score(Noting(), NAME, trials)
    assert {text for text in seen if "fruit" in text} == {f" fruit number {i}" for i in (0, 4, 9)}


@pytest.mark.parametrize("always", [True, False])
def test_a_constant_answer_is_at_chance(always):
    judge, trials = Judge(lambda text: always), case().trials
    assert detection_score(judge, NAME, trials).accuracy == 0.5
    assert causal_score(judge, NAME, trials).accuracy == 0.5


def test_firing_and_silent_contexts_are_equally_many():
    trials = replace(case().trials, silent=case().trials.silent[:4])
    assert detection_score(Judge(), NAME, trials).n == 8


def test_pairs_of_equal_texts_are_left_out():
    same = TextPair("x", "fruit", "fruit")
    trials = replace(case().trials, pairs=(*case().trials.pairs, same, same))
    score = causal_score(Judge(), NAME, trials)
    assert (score.n, score.accuracy) == (10, 1.0)


def test_the_order_of_contexts_does_not_depend_on_their_source():
    seen: list[list[str]] = []

    class Noting(Judge):
        def firing(self, name, contexts):
            seen.append(list(contexts))
            return set()

    own = case().trials
    for trials in (own, replace(own, firing=own.firing[::-1], silent=own.silent[::-1])):
        detection_score(Noting(), NAME, trials)
    assert seen[0] == seen[1]
    kinds = [text.split()[0] for text in seen[0]]
    assert kinds != sorted(kinds)
    assert kinds != sorted(kinds, reverse=True)


def test_too_few_trials_give_no_score():
    few = HeldOutExamples((), (), ())
    assert detection_score(Judge(), NAME, few).status == "too_few"
    score = causal_score(Judge(), NAME, case(n_pairs=4).trials)
    assert (score.status, score.accuracy) == ("too_few", None)
    assert "4 pairs" in score.detail


class Broken(Judge):
    """Names even features only, and fails to judge any."""

    def name(self, evidence):
        if evidence.feature % 2:
            raise LabelError("unanswered", "nobody there")
        return NAME

    def firing(self, name, contexts):
        raise LabelError("over_budget", "all spent")

    steered = firing


@pytest.mark.parametrize("at_once", [1, 4])
def test_every_feature_has_a_status_even_if_others_fail(at_once):
    labels = label_all(Broken(), [case(i) for i in range(6)], at_once)
    assert [label.feature for label in labels] == list(range(6))
    assert [label.status for label in labels] == ["labelled", "unanswered"] * 3
    assert [label.detection.status for label in labels] == ["over_budget", "no_label"] * 3


def test_a_bug_in_a_labeller_is_raised():
    class Slip(Judge):
        def name(self, evidence):
            raise ZeroDivisionError

    for at_once in (1, 3):
        with pytest.raises(ZeroDivisionError):
            label_all(Slip(), [case(i) for i in range(4)], at_once)


def test_without_evidence_the_labeller_is_not_called():
    bare = replace(case().evidence, contexts=(), raised=(), texts=())
    (label,) = label_all(Broken(), [replace(case(), evidence=bare)])
    assert label.status == "no_evidence"
