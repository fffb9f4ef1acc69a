from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
import scipy.stats

from saelens_steer.evidence import statistics as st

pytestmark = pytest.mark.filterwarnings("error")


def test_a_resample_draws_as_many_prompts_as_there_are():
    weights = st.bootstrap_weights(7, 50, seed=0)
    assert (weights.sum(1) == 7).all()
    assert (weights == st.bootstrap_weights(7, 50, seed=0)).all()


def test_the_interval_agrees_with_scipys_percentile_bootstrap():
    rng = np.random.default_rng(0)
    base = rng.normal(size=15)
    steered = base + rng.exponential(size=15)
    expected = scipy.stats.bootstrap(
        (steered - base,), np.mean, method="percentile", n_resamples=20_000, rng=rng
    ).confidence_interval
    cube = np.stack([base, steered])[None]
    low, high = st.bootstrap_interval(cube, 0, st.bootstrap_weights(15, 20_000, 0))
    assert (low[0, 1], high[0, 1]) == pytest.approx(tuple(expected), abs=0.02)


def test_the_interval_is_the_percentile_of_the_same_resamples_for_both_sides():
    rng = np.random.default_rng(0)
    cube = rng.normal(size=(3, 4, 9))
    cube[1, 2, :4] = np.nan
    weights = st.bootstrap_weights(9, 99, seed=1)
    low, high = st.bootstrap_interval(cube, 1, weights, level=0.9)
    for d, a in itertools.product(range(3), range(4)):
        means = [
            [np.nanmean(np.repeat(cube[d, k], w.astype(int))) for k in (a, 1)] for w in weights
        ]
        expected = np.quantile(np.subtract(*np.transpose(means)), [0.05, 0.95])
        assert (low[d, a], high[d, a]) == pytest.approx(tuple(expected))


def test_the_interval_covers_the_truth_about_95_times_in_100():
    rng = np.random.default_rng(0)
    base = rng.normal(size=(1500, 1, 40))
    cube = np.concatenate([base, base + 0.3 + rng.normal(size=base.shape)], axis=1)
    low, high = st.bootstrap_interval(cube, 0, st.bootstrap_weights(40, 1000, 0))
    covered = ((low <= 0.3) & (high >= 0.3))[:, 1].mean()
    assert 0.92 < covered < 0.97


def test_at_alpha_zero_the_interval_is_exactly_zero():
    cube = np.random.default_rng(0).normal(size=(2, 3, 8))
    low, high = st.bootstrap_interval(cube, 1, st.bootstrap_weights(8, 100, 0))
    assert (low[:, 1] == 0).all()
    assert (high[:, 1] == 0).all()


def test_what_was_not_measured_is_nan_without_a_warning():
    cube = np.full((3, 2, 5), np.nan)
    cube[0] = 1.0
    cube[1, :, 0] = 1.0  # one prompt alone has a mean but no interval
    low, _ = st.bootstrap_interval(cube, 0, st.bootstrap_weights(5, 50, 0))
    delta = st.mean_difference(st.prompt_mean(cube), 0)
    assert (low[0] == 0).all()
    assert np.isnan(low[1:]).all()
    assert (delta[:2] == 0).all()
    assert np.isnan(delta[2]).all()
    assert np.isnan(st.max_statistic(delta)[2])


def test_infinite_values_neither_warn_nor_give_a_finite_interval():
    cube = np.zeros((1, 2, 5))
    cube[0, 1, 0] = np.inf
    low, high = st.bootstrap_interval(cube, 0, st.bootstrap_weights(5, 50, 0))
    assert not np.isfinite([low[0, 1], high[0, 1]]).any()
    assert st.max_statistic(st.mean_difference(st.prompt_mean(cube), 0))[0] == np.inf


def test_a_difference_that_is_only_rounding_is_zero():
    means = np.array([[0.1 + 0.2, 0.3, 0.3 + 1e-9]])
    assert (st.mean_difference(means, 1)[0, :2] == 0).all()
    assert st.mean_difference(means, 1)[0, 2] > 0


def test_the_interval_of_thousands_of_rows_takes_well_under_a_second():
    cube = np.random.default_rng(0).normal(size=(540, 5, 24))
    weights = st.bootstrap_weights(24, 1000, 0)
    start = time.perf_counter()
    st.bootstrap_interval(cube, 2, weights)
    assert time.perf_counter() - start < 1.0


def test_the_statistic_is_the_largest_effect_of_either_sign_that_was_measured():
    delta = np.array([[0.1, 0.0, -0.4], [np.nan, 0.0, 0.2]])
    assert st.max_statistic(delta).tolist() == [0.4, 0.2]


def test_p_counts_the_controls_that_reach_the_statistic_and_is_never_zero():
    p = st.p_values(np.array([0.5, 2.5, 9.0, np.nan]), np.array([1.0, 2.0, 3.0]))
    assert p[:3].tolist() == [1.0, 0.5, 0.25]
    assert np.isnan(p[3])
    assert np.isnan(st.p_values(np.array([1.0]), np.array([]))).all()


def test_ties_and_near_ties_count_against_the_claim():
    controls = np.array([0.3, 0.3 * (1 - 1e-8), 0.1])
    assert st.p_values(np.array([0.1 + 0.2]), controls)[0] == 3 / 4
    assert st.p_values(np.array([0.0]), np.zeros(9))[0] == 1.0


def test_p_values_are_uniform_where_candidates_are_random_directions():
    rng = np.random.default_rng(0)
    p = np.array([st.p_values(t[:1], t[1:])[0] for t in rng.standard_cauchy((4000, 100)) ** 2])
    assert p.min() > 0
    grid = np.arange(1, 101) / 100
    assert np.abs((p[:, None] <= grid + 1e-9).mean(0) - grid).max() < 0.03


def test_the_headline_p_of_one_candidate_is_its_own_p():
    controls = np.arange(9.0)
    for t in (0.5, 4.0, 10.0):
        own = np.array([t])
        assert st.headline_p(own, controls) == pytest.approx(st.p_values(own, controls)[0])


def test_the_headline_p_is_the_share_of_relabellings_that_do_as_much():
    candidates, controls = np.array([3.0, 6.5, np.nan]), np.array([1.0, 2.0, 4.0, 6.0, 7.0])
    pooled = [3.0, 6.5, *controls]
    reach = [max(pair) >= 6.5 for pair in itertools.combinations(pooled, 2)]
    assert st.headline_p(candidates, controls) == pytest.approx(np.mean(reach))


def test_the_headline_p_finds_something_in_5_of_100_null_reports_and_no_more():
    rng = np.random.default_rng(0)
    p = np.array([st.headline_p(t[:20], t[20:]) for t in rng.exponential(size=(3000, 532))])
    assert p.min() > 0
    assert 0.035 < (p < 0.05).mean() < 0.062


def test_the_headline_p_without_candidates_or_controls_is_nan():
    assert np.isnan(st.headline_p(np.array([np.nan]), np.ones(5)))
    assert np.isnan(st.headline_p(np.ones(5), np.array([])))


def test_false_discovery_leaves_out_what_has_no_p():
    q = st.false_discovery(np.array([0.01, np.nan, 0.04]))
    assert q[[0, 2]].tolist() == pytest.approx([0.02, 0.04])
    assert np.isnan(q[1])
    assert np.isnan(st.false_discovery(np.array([np.nan]))).all()


def test_the_sign_rate_is_the_share_of_prompts_that_go_the_other_way():
    own = np.array([[1.0, 2.0, -1.0, np.nan], [1.0, 0.0, -1.0, -2.0], [1.0, -1.0, 0.0, 0.0]])
    rate = st.sign_rate(own, np.array([0.5, -0.5, 0.0]))
    assert rate[:2].tolist() == pytest.approx([1 / 3, 1 / 4])
    assert np.isnan(rate[2])


def test_the_separation_score_sums_distances_to_the_mean_of_the_controls():
    delta = np.array([[1.0, -2.0], [np.nan, 3.0], [np.nan, np.nan]])
    controls = np.array([[0.0, 1.0], [1.0, 1.0]])
    score = st.separation_score(delta, controls)
    assert score[:2].tolist() == [3.5, 2.0]
    assert np.isnan(score[2])
    assert np.isnan(st.separation_score(delta, controls[:0])).all()
