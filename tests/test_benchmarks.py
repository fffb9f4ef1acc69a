"""The benchmarks measure what they say: the paths agree, and the figures are of all rows."""

import importlib.util

import pytest
import torch

from benchmarks import generate, scale, sweep
from benchmarks.side_by_side import Bench, strengths

SMALL = Bench(n_prompts=3, n_directions=2, alphas=strengths(3))


@pytest.mark.parametrize("positions", ["all", "last"])
def test_every_path_of_the_sweep_gives_the_logits_of_a_hugging_face_hook(positions):
    with torch.no_grad():
        found = sweep.measured(SMALL, positions, sweep.sample(SMALL, 3), repeats=1)
    assert {"a_hooked_transformer", "e_whole_passes", "f_ours"} <= set(found["seconds"])
    if importlib.util.find_spec("nnsight"):
        assert "d_nnsight" in found["seconds"]
    for name, agreement in found["agreement"].items():
        assert agreement["max_abs_delta"] < 2e-5, name
        assert agreement["argmax_differs"] == 0, name
    assert found["agreement"]["f_ours"]["rows"] == 3 * 2 * 3


def test_a_path_that_is_off_is_seen():
    logits = torch.tensor([[3.0, 1.0], [1.0, 1.00001], [2.0, 0.0]])
    off = sweep.compared(torch.tensor([[1.0, 3.0], [1.0, 1.0], [2.0, 0.0]]), logits)
    assert off["max_abs_delta"] == 2.0
    assert (off["argmax_differs"], off["argmax_ties"]) == (1, 1)


def test_every_path_writes_the_texts_of_a_hugging_face_hook():
    with torch.no_grad():
        found = generate.measured(SMALL, 6, generate.written_once(SMALL), repeats=1)
    assert found["rows"] == 3 * (1 + 2 * 2)
    for name, agreement in found["agreement"].items():
        assert agreement["rows"] == found["rows"] and agreement["differ"] == 0, name


def test_batches_of_any_size_give_the_same_margins():
    with torch.no_grad():
        found = scale.budgets((2048, 32, 512), n_prompts=5)
    for size, other in found.items():
        assert other["max_margin_delta"] < 1e-5, size
        assert other["argmax_differs"] == 0, size


def test_the_line_through_times_is_found_and_what_is_off_it():
    rows = [1000, 2000, 4000]
    found = scale.line(rows, [0.5 + 0.001 * n for n in rows])
    assert found["fixed_in_rows"] == 500
    assert max(map(abs, found["off_the_line"])) == 0
    assert max(map(abs, scale.line(rows, [1.0, 2.0, 8.0])["off_the_line"])) > 0.15


def test_many_controls_go_through_to_rows_and_claims():
    with torch.no_grad():
        found = scale.million(4, n_prompts=3)
    assert found["rows"] == 5 * 9 * 3
    assert found["claims"] == 1
