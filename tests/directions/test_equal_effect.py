"""equal_effect.py: strengths of equal effect are found if they exist and NaN if not."""

import math

import numpy as np

from saelens_steer.directions.equal_effect import TOLERANCE, equal_effect_steps


def test_each_way_gets_the_step_with_the_effect():
    ways = [lambda s: 2 * s, lambda s: s**3, lambda s: 5 * math.tanh(s)]
    steps = equal_effect_steps(
        lambda which, far: [ways[i](s) for i, s in zip(which, far, strict=True)], 3, 1.0, 0.05, 9.0
    )
    for way, step in zip(ways, steps, strict=True):
        assert abs(way(step) - 1.0) <= TOLERANCE


def test_a_way_that_does_not_reach_the_effect_is_missing_and_the_others_are_not():
    ways = [lambda s: min(s, 0.4), lambda s: s, lambda s: -s]
    steps = equal_effect_steps(
        lambda which, far: [ways[i](s) for i, s in zip(which, far, strict=True)], 3, 1.0, 0.05, 6.0
    )
    assert np.isnan(steps[0])
    assert abs(steps[1] - 1.0) <= TOLERANCE
    assert np.isnan(steps[2])


def test_where_the_effect_turns_back_the_first_crossing_counts():
    steps = equal_effect_steps(lambda _, far: [3 * math.sin(s) for s in far], 1, 1.0, 0.05, 6.0)
    assert steps[0] < 0.5
