"""The packing plan is a pure function that loses nothing and keeps to its budget."""

import numpy as np
import pytest

from saelens_steer.sweeps.plan import pack, shards


@pytest.mark.parametrize("seed", range(5))
def test_every_row_once_within_the_budget(seed):
    draw = np.random.default_rng(seed)
    lengths, n_cells = draw.integers(1, 40, size=17).tolist(), int(draw.integers(1, 60))
    batches = pack(lengths, n_cells, 256)
    rows = [(int(p), int(c)) for b in batches for p, c in zip(b.prompts, b.cells, strict=True)]
    assert sorted(rows) == [(p, c) for p in range(17) for c in range(n_cells)]
    for batch in batches:
        assert len(batch) * max(lengths[p] for p in batch.prompts) <= 256


def test_batches_are_as_full_as_the_budget_allows():
    batches = pack([10] * 8, 100, 1000)
    assert [len(b) for b in batches] == [100] * 8


def test_a_row_over_the_budget_is_a_batch_of_its_own():
    assert [len(b) for b in pack([50, 3], 2, 10)] == [2, 1, 1]


def test_shards_are_consecutive_batches():
    batches = pack([7, 5, 9], 50, 100)
    groups = shards(batches, rows_per_shard=40)
    assert [b for group in groups for b in group] == batches
    assert all(sum(map(len, g)) >= 40 for g in groups[:-1])
