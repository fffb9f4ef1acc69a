"""The benchmarks measure what they say: the paths agree, and the figures are of all rows."""

import importlib.util
import json
from dataclasses import replace
from functools import cache

import pandas as pd
import pytest
import torch
from saes import random_sae
from transformer_lens import HookedTransformerConfig

from benchmarks import calibration, generate, power, scale, shapes, sweep
from benchmarks.rates import mean_share, rate
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


@pytest.mark.slow
def test_every_path_writes_the_texts_of_a_hugging_face_hook():
    with torch.no_grad():
        found = generate.measured(SMALL, 6, generate.written_once(SMALL), repeats=1)
    assert found["rows"] == 3 * (1 + 2 * 2)
    for name, agreement in found["agreement"].items():
        assert agreement["rows"] == found["rows"] and agreement["differ"] == 0, name


@pytest.mark.slow
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


NULL = calibration.Null(n_candidates=2, n_controls=41, n_prompts=3)


@pytest.mark.slow
def test_resamples_differ_and_go_on_where_they_were_stopped(tmp_path):
    with torch.no_grad():
        stopped = calibration.resampled(NULL, 2, tmp_path / "kept.parquet")
        found = calibration.resampled(NULL, 3, tmp_path / "kept.parquet")
        pd.testing.assert_frame_equal(found, calibration.resampled(NULL, 3))
    pd.testing.assert_frame_equal(found.iloc[:2], stopped)
    assert len(set(found["headline"])) == len(set(found["p_best"])) == 3
    assert found["candidates"].tolist() == [2] * 3
    assert found["headline"].str.contains("of 41 random directions of the same norm").all()
    assert list(found["claimed"]) == [n > 0 for n in found["passing"]]
    with pytest.raises(SystemExit, match="other settings"):
        calibration.resampled(replace(NULL, controls="isotropic"), 1, tmp_path / "kept.parquet")


def test_what_resamples_claim_is_counted():
    rows = [(0, 0.5, False), (1, 0.04, True), (2, 0.06, True), (0, 0.9, False)]
    table = pd.DataFrame(rows, columns=["below", "p_best", "claimed"]).assign(candidates=10)
    found = calibration.figures(table)
    assert found["resamples"] == 4
    assert found["p_below_5_percent"]["share"] == 0.075
    assert found["headline_claims"] == rate(table["claimed"])
    assert (found["headline_claims"]["count"], found["headline_claims"]["share"]) == (2, 0.5)
    assert found["p_best_below_5_percent"]["count"] == 1
    assert not calibration.holds(found)


def test_shares_come_with_intervals():
    all_of_40 = rate([True] * 40)
    assert (all_of_40["share"], all_of_40["high"]) == (1.0, 1.0)
    assert all_of_40["low"] == pytest.approx(0.025 ** (1 / 40), abs=1e-4)
    mean = mean_share([0.0, 0.1] * 50)
    assert mean["share"] == 0.05
    assert mean["low"] == pytest.approx(0.04, abs=0.003)
    assert mean["high"] == pytest.approx(0.06, abs=0.003)


@pytest.mark.slow
def test_a_feature_planted_among_random_ones_is_found_and_claimed(tiny_model):
    sae = random_sae(tiny_model.cfg.d_model, None)
    sae.W_dec.data = torch.nn.functional.normalize(sae.W_dec.data, dim=1)
    before = sae.W_dec.detach().clone()
    lab = power.Lab(sae, n_controls=45, n_candidates=2, n_prompts=4, of_prompts=6)
    runs = [power.run(lab, "both", number) for number in range(2)]
    assert torch.equal(sae.W_dec, before)
    assert runs[0]["feature"] != runs[1]["feature"]
    for found in runs:
        assert found["direct_logit"] == found["attribution"] == 1
        assert found["verdict"] == "more than random"
        assert found["candidates"] == 2
    found = power.figures(runs)
    assert found["first_of_its_side"]["direct_logit"]["count"] == 2
    assert found["more_than_random"]["count"] == found["runs"] == 2


def test_runs_that_miss_the_planted_feature_are_counted_as_missing_it():
    missed = dict.fromkeys(power.SCORES) | {"direct_logit": 2, "attribution": 1}
    about = {"candidates": 20, "effect": -0.1, "control_quantile": 0.2}
    runs = [missed | about | {"verdict": "no more than random"}] * 4
    found = power.figures(runs)
    first = {score: own["count"] for score, own in found["first_of_its_side"].items()}
    assert first == dict.fromkeys(power.SCORES, 0) | {"attribution": 4}
    assert found["more_than_random"]["count"] == 0
    assert found["median_effect_over_control_quantile"] == 0.5
    json.dumps(found)


@pytest.mark.parametrize("shape", list(shapes.SHAPES))
def test_rows_of_other_shapes_agree_with_a_loop_of_run_with_hooks(shape, monkeypatch):
    tiny = {"d_model": 32, "n_heads": 4, "d_head": 8, "d_mlp": 48, "d_vocab": 300, "n_layers": 2}
    less = {"attn_types": ["local", "global"]} if "attn_types" in shapes.SHAPES[shape] else {}
    monkeypatch.setitem(shapes.SHAPES, shape, {**shapes.SHAPES[shape], **tiny, **less})
    monkeypatch.setattr(shapes, "random_model", cache(shapes.random_model.__wrapped__))
    bench = shapes.ShapeBench(2, 2, strengths(4), shape)
    for positions in ("all", "last"):
        with torch.no_grad():
            found = shapes.measured(bench, positions, 4, repeats=1)
        assert found["agreement"]["max_abs_delta"] < 2e-5
        assert found["rows_computed"] == 2 * (1 + 2 * 4)
        assert found["own_layers_of_transformerlens"] == ("bloom" in shape)


def test_the_bound_of_shared_work_is_that_of_gpt2s_shape():
    """Of 12 layers of 12 d², new are 5, keys and values of the last, and the rest of one token."""
    d, n = 768, 100
    full, own = 12 * 12 * d**2 + d * 50_257, 62 * d**2 + (10 * d**2 + d * 50_257) / n
    cfg = HookedTransformerConfig(**shapes.SHAPES["gpt2"], n_ctx=2 * n)
    assert shapes.bound(cfg, padded=False) == pytest.approx(full / own)
    assert 3.3 < full / own < 3.4
