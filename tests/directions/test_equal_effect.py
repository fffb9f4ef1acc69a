"""equal_effect.py: strengths of equal effect are found if they exist and NaN if not."""

import math

import numpy as np
import pytest

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


@pytest.mark.parametrize("power", [1, 6])
@pytest.mark.parametrize("root", [0.01, 3.9, 4.1, 4.33, 5.5, 6.0])
def test_every_effect_that_some_step_up_to_the_longest_has_is_found(root, power):
    (step,) = equal_effect_steps(
        lambda _, far: [(s / root) ** power for s in far], 1, 1.0, 0.05, 6.0
    )
    assert abs((step / root) ** power - 1) <= TOLERANCE


def test_no_step_beyond_the_longest_is_tried():
    tried = []
    equal_effect_steps(lambda _, far: tried.extend(far) or [0.0 for _ in far], 2, 1.0, 0.05, 6.0)
    assert max(tried) == 6.0


def test_an_effect_that_is_not_a_number_is_missing_and_is_not_tried_again():
    asked = []

    def effects(which, far):
        asked.append(list(which))
        return [math.nan if i == 0 else s for i, s in zip(which, far, strict=True)]

    steps = equal_effect_steps(effects, 2, 1.0, 0.05, 6.0)
    assert np.isnan(steps[0])
    assert abs(steps[1] - 1.0) <= TOLERANCE
    assert asked[1] == [1]
