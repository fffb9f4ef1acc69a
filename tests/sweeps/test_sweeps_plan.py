"""The packing plan is a pure function that loses nothing and keeps to its budget."""

import numpy as np
import pytest

from saelens_steer.sweeps.plan import batches, shards


def drawn(seed: int, n: int = 17) -> list[list[int]]:
    """Prompts of different lengths, some of which begin alike."""
    draw = np.random.default_rng(seed)
    return [draw.integers(0, 3, size=size).tolist() for size in draw.integers(1, 40, size=n)]


@pytest.mark.parametrize("seed", range(5))
def test_every_row_once_within_the_budget(seed):
    prompts, n_cells = drawn(seed), 7 * seed + 1
    plan = batches(range(n_cells), prompts, 256)
    rows = [pair for b in plan for pair in zip(b.row_prompts, b.row_cells, strict=True)]
    assert sorted(rows) == [(p, c) for p in range(17) for c in range(n_cells)]
    for batch in plan:
        assert sum(len(prompts[p]) for p in batch.row_prompts) <= 256


@pytest.mark.parametrize("seed", range(5))
def test_padded_rows_keep_to_the_budget_with_their_padding(seed):
    prompts = [*drawn(seed), [1] * 400]
    plan = batches(range(7), prompts, 512, padded=True)
    every = [pair for b in plan for pair in zip(b.row_cells, b.row_prompts, strict=True)]
    assert sorted(every) == [(c, p) for c in range(7) for p in range(18)]
    for batch in plan:
        assert len(batch) * max(len(prompts[p]) for p in batch.prompts) <= 512


def test_batches_are_as_full_as_the_budget_allows():
    plan = batches(range(100), [[1] * 10] * 8, 1000)
    assert {len(b) for b in plan} == {96, 32}  # twelve cells of eight prompts, and what is left


def test_a_row_over_the_budget_is_a_batch_of_its_own():
    assert [len(b) for b in batches(range(2), [[1] * 50, [2] * 3], 10)] == [1, 1, 2]


def test_where_a_row_takes_one_token_more_rows_fit():
    assert [len(b) for b in batches(range(9), [[1] * 50, [2] * 3], 18, [1, 1])] == [18]


def test_prompts_that_begin_alike_run_together():
    prompts = [[1, 2, 3], [7, 8, 9], [1, 2, 4], [7, 8, 5]]
    assert [b.prompts for b in batches([0], prompts, 6)] == [(0, 2), (3, 1)]


def test_halves_of_a_batch_are_the_batch():
    whole = batches(range(5), drawn(0, 3), 10_000)[0]
    while len(whole) > 1:
        first, second = whole.halves()
        assert sorted(_rows(first) + _rows(second)) == sorted(_rows(whole))
        whole = first


def _rows(batch) -> list[tuple[int, int]]:
    return list(zip(batch.row_cells, batch.row_prompts, strict=True))


def grid_of(n_directions: int, n_alphas: int) -> list[tuple[int, float]]:
    return [(d, float(a)) for d in range(n_directions) for a in range(1, n_alphas + 1)]


def test_shards_hold_every_cell_once_and_directions_whole():
    cells = grid_of(50, 8)
    groups = shards(cells, ["a"] * 50, n_prompts=10, rows=200)
    assert [c for group in groups for c in group] == list(range(len(cells)))
    for group in groups:
        assert group.start % 8 == 0 and group.stop % 8 == 0
        assert len(group) * 10 >= 200 or group is groups[-1]


def test_more_candidates_leave_the_shards_of_controls_as_they_are():
    def controls(n_candidates: int) -> list[int]:
        families = ["candidate"] * n_candidates + ["isotropic"] * 30
        groups = shards(grid_of(n_candidates + 30, 4), families, n_prompts=10, rows=200)
        return [len(g) for g in groups if g.start >= 4 * n_candidates]

    assert controls(2) == controls(11)
