"""Units of strength, every hook of a layer on the fast path, and positions that are left alone."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pandas as pd
import pytest
import torch
from model.model_batches import rows
from steering.plain_edits import encoded, firing_sae
from sweeps.passes import based

import saelens_steer as ss
from saelens_steer.activations import Activations
from saelens_steer.config import MarginMetric
from saelens_steer.features import Scale, measured_scale
from saelens_steer.metrics import kl, resolve_metrics
from saelens_steer.model import last_token_logits, run_to_hook
from saelens_steer.steering import add, feature_directions, plain_directions, steered
from saelens_steer.steering.directions import scaled_vectors
from saelens_steer.sweeps import LogitSweep, Store, UnsteeredPass, grid
from saelens_steer.sweeps.logits import run_logits
from saelens_steer.sweeps.strengths import calibrated_steps, kl_steps

HOOK = "blocks.2.hook_resid_pre"
SPECIAL = 1
TEXTS = [f"sum of {i} numbers and {i} more" + "!" * i for i in range(5)]
MARGIN = MarginMetric.model_validate({"margin": {"name": "m", "target": {"ids": [40, 41]}}})


PASS_FIELDS = {field.name for field in fields(UnsteeredPass)}


def logit_sweep(model, hook_name: str = HOOK, **settings) -> LogitSweep:
    """Two random directions at two strengths on four prompts, two with a special token in them."""
    longer = rows()
    longer[0][0, 3] = longer[2][0, 2] = SPECIAL
    draw = torch.Generator().manual_seed(2)
    unsteered_pass = {"prompts": [row[0].tolist() for row in longer], "batch_tokens": 64}
    unsteered_pass |= {key: settings.pop(key) for key in PASS_FIELDS if key in settings}
    defaults = {
        "directions": plain_directions(torch.randn(2, model.cfg.d_model, generator=draw)),
        "cells": [(0, -3.0), (1, 3.0)],
        "metrics": resolve_metrics([MARGIN, "kl"], model.tokenizer, model.cfg.d_vocab),
    }
    on = UnsteeredPass(model=model, hook_name=hook_name, **unsteered_pass)
    return LogitSweep(unsteered_pass=on, **(defaults | settings))


def measured(sweep: LogitSweep) -> pd.DataFrame:
    """The steered rows in the order of cells and prompts."""
    table = run_logits(sweep).query("cell >= 0")
    return table.sort_values(["cell", "prompt"], ignore_index=True)


def one_at_a_time(sweep: LogitSweep, **where) -> pd.DataFrame:
    """The same rows through the whole model, each prompt alone in a context of its own."""
    found = []
    for prompt, ids in enumerate(sweep.prompts):
        tokens = torch.tensor([ids])
        mask = torch.ones_like(tokens).bool()
        plain = last_token_logits(sweep.model, tokens, mask)
        for cell, (which, alpha) in enumerate(sweep.cells):
            edit = add(sweep.directions.vectors[which], alpha)
            with steered(sweep.model, edit, sweep.unsteered_pass.hook_name, **where) as receipt:
                logits = last_token_logits(sweep.model, tokens, mask)
            values = {m.name: float(m.of(logits, baseline=plain)) for m in sweep.metrics}
            receipts = {"receipt_positions": receipt.positions}
            receipts["receipt_rel_norm"] = receipt.rel_norm
            found.append({"cell": cell, "prompt": prompt, **values, **receipts})
    return pd.DataFrame(found).sort_values(["cell", "prompt"], ignore_index=True)


def assert_same(ours: pd.DataFrame, theirs: pd.DataFrame) -> None:
    for column in ("cell", "prompt", "m", "kl", "receipt_positions", "receipt_rel_norm"):
        a, b = ours[column].to_numpy(float), theirs[column].to_numpy(float)
        np.testing.assert_allclose(a, b, atol=1e-4, rtol=1e-4, err_msg=column)


def test_what_one_unit_of_each_kind_adds():
    vectors = torch.tensor([[3.0, 4.0], [0.0, 0.5]])
    units = torch.tensor([[0.6, 0.8], [0.0, 1.0]])
    scale = Scale({7: 2.0, 8: 10.0}, resid_norm=6.0)
    expected = {
        "raw": vectors,
        "unit": units,
        "max_act": torch.tensor([[6.0, 8.0], [0.0, 5.0]]),
        "resid_norm": 6.0 * units,
        "kl": units,
    }
    for unit, added in expected.items():
        torch.testing.assert_close(scaled_vectors(vectors, [7, 8], unit, scale), added)


def test_a_unit_whose_size_is_not_known_is_refused():
    vectors = torch.eye(2)
    with pytest.raises(ss.InputError, match="has no A_max"):
        scaled_vectors(vectors, [None, None], "max_act", Scale({0: 1.0}))
    with pytest.raises(ss.InputError, match="A_max of feature 1"):
        scaled_vectors(vectors, [0, 1], "max_act", Scale({0: 1.0}))
    with pytest.raises(ss.InputError, match=r"mean ‖x‖"):
        scaled_vectors(vectors, [0, 1], "resid_norm")
    with pytest.raises(ss.InputError, match="raw, unit, max_act, resid_norm, kl, not 'nats'"):
        scaled_vectors(vectors, [0, 1], "nats")


@pytest.fixture(scope="module")
def cached(random_model) -> Activations:
    return ss.cache_activations(random_model, TEXTS, hook_name=HOOK)


def test_a_max_is_the_largest_activation_over_all_cached_vectors(cached, monkeypatch):
    sae = firing_sae(32)
    expected = torch.stack([encoded(sae, x) for x in cached.vectors]).amax(0)
    monkeypatch.setattr("saelens_steer.sae.codec.CHUNK", 7)
    scale = measured_scale(cached, sae, range(64))
    torch.testing.assert_close(torch.tensor([scale.max_act[f] for f in range(64)]), expected)
    norms = [float(x.norm()) for x in cached.vectors]
    assert scale.resid_norm == pytest.approx(sum(norms) / len(norms))


def test_a_feature_that_never_fires_has_no_a_max(random_model, cached):
    sae = firing_sae(32)
    with pytest.raises(ss.InputError, match="feature 63 never fires"):
        measured_scale(cached, sae, [63]).a_max(63)
    with pytest.raises(ss.InputError, match="feature 63 never fires"):
        ss.sweep(random_model, sae, TEXTS, hook_name=HOOK, features=[63], alpha_unit="max_act")


def test_a_sweep_in_units_of_a_max_is_one_in_raw_units_of_as_much(random_model, cached):
    sae = firing_sae(32)
    a_max = measured_scale(cached, sae, [5]).a_max(5)
    same = {"hook_name": HOOK, "features": [5], "n_controls": 0, "metrics": [MARGIN, "kl"]}
    for unit, alpha in (("max_act", 1.0), ("raw", a_max)):
        found = ss.sweep(random_model, sae, TEXTS, alphas=[alpha], alpha_unit=unit, **same)
        pushed = found.rows.query("alpha != 0")
        size = a_max * float(sae.W_dec[5].detach().norm())
        assert pushed["receipt_push"].to_numpy() == pytest.approx(size)
        assert pushed["kl"].to_numpy() == pytest.approx(
            [_kl_of(random_model, sae.W_dec[5] * a_max, text) for text in TEXTS], abs=1e-4
        )


def _kl_of(model, push: torch.Tensor, text: str) -> float:
    """KL of one prompt steered by hand."""
    tokens = torch.tensor([model.tokenizer(text)["input_ids"]])
    mask = torch.ones_like(tokens).bool()
    plain = last_token_logits(model, tokens, mask)
    with steered(model, add(push), HOOK):
        return float(kl(last_token_logits(model, tokens, mask), baseline=plain))


KL = {
    "features": [3, 5],
    "alphas": [-0.5, -0.05, 0, 0.05, 0.5],
    "alpha_unit": "kl",
    "n_controls": 4,
    "metrics": [MARGIN, "kl"],
}


@pytest.fixture(scope="module")
def in_nats(random_model, small_sae):
    return ss.sweep(random_model, small_sae, TEXTS, **KL)


def test_every_cell_in_units_of_kl_moves_the_model_by_so_many_nats(in_nats):
    found = in_nats.rows.groupby(["family", "direction", "alpha"])["kl"].mean().reset_index()
    assert set(found["family"]) == {"candidate", "covariance"}
    moved = found.query("alpha != 0")
    assert len(moved) == (2 + 4) * 4
    off = (moved["kl"] / moved["alpha"].abs() - 1).abs()
    assert off.max() <= 0.02 + 1e-4
    assert (found.query("alpha == 0")["kl"] == 0).all()


def test_the_two_signs_of_a_kl_go_opposite_ways_and_farther_for_more(random_model, small_sae):
    directions = feature_directions(small_sae, [3, 5], "kl")
    sweep = logit_sweep(
        random_model, directions=directions, cells=[(0, -0.5), (0, -0.05), (0, 0.05), (0, 0.5)]
    )
    steps = kl_steps(sweep, 10.0)
    assert steps[0] < steps[1] < 0 < steps[2] < steps[3]


def test_the_receipt_has_the_norm_of_the_push_in_every_unit(random_model, small_sae, in_nats):
    pushes = in_nats.rows.query("alpha != 0").groupby(["direction", "alpha"])["receipt_push"]
    assert (pushes.nunique() == 1).all()
    row = in_nats.rows.query("direction == 'feature_3' and alpha == 0.5").iloc[0]
    unit = small_sae.W_dec[3].detach() / small_sae.W_dec[3].detach().norm()
    by_hand = [_kl_of(random_model, unit * row["receipt_push"], text) for text in TEXTS]
    assert np.mean(by_hand) == pytest.approx(0.5, rel=0.021)
    raw = measured(logit_sweep(random_model))
    directions = logit_sweep(random_model).directions
    for push, cell in zip(raw["receipt_push"], raw["cell"], strict=True):
        which, alpha = logit_sweep(random_model).cells[cell]
        assert push == pytest.approx(abs(alpha) * float(directions.vectors[which].norm()))
    assert (in_nats.rows.query("alpha == 0")["receipt_push"] == 0).all()


@pytest.mark.slow
def test_the_steps_of_a_kl_do_not_depend_on_the_batch(random_model, small_sae):
    directions = feature_directions(small_sae, [3, 5], "kl")
    sweep = logit_sweep(random_model, directions=directions, cells=grid(2, (-0.3,)))
    steps = [kl_steps(based(sweep, batch_tokens=n), 10.0) for n in (1, 64, 4096)]
    assert steps[0] == pytest.approx(steps[1], rel=1e-3)
    assert steps[2] == pytest.approx(steps[1], rel=1e-3)


@pytest.mark.slow
def test_kept_strengths_are_those_of_their_own_scale_and_of_each_direction(
    random_model, small_sae, tmp_path, monkeypatch
):
    """The search begins at the mean norm: another one ends on other digits."""
    sweep = logit_sweep(random_model, directions=feature_directions(small_sae, [3, 5], "raw"))
    sweep = replace(sweep, cells=grid(2, (-0.1, 0.1)))
    store = Store(tmp_path, "k")
    first, other = (calibrated_steps(sweep, norm, store) for norm in (10.0, 7.3))
    assert first == kl_steps(sweep, 10.0) and other == kl_steps(sweep, 7.3)
    assert first != other

    def refuse(*args):
        raise AssertionError("searched again")

    monkeypatch.setattr("saelens_steer.sweeps.strengths.kl_steps", refuse)
    assert calibrated_steps(sweep, 10.0, store) == first


@pytest.mark.slow
def test_completions_in_units_of_kl_are_pushed_as_far_as_the_logits(random_model, small_sae):
    completions = {"max_new_tokens": 4, "top": 1, "n_controls": 1}
    settings = KL | {"alphas": [-0.5, 0.5], "metrics": ["kl", "distinct_words"]}
    found = ss.sweep(random_model, small_sae, TEXTS, completions=completions, **settings)
    rows = found.rows.query("direction == 'feature_5' and alpha == -0.5").set_index("prompt_id")
    texts = found.completions.query("direction == 'feature_5' and alpha == -0.5")
    unit = small_sae.W_dec[5].detach() / small_sae.W_dec[5].detach().norm()
    push = -float(rows["receipt_push"].iloc[0])
    by_hand = ss.compare_edits(random_model, {"v": add(unit, push)}, TEXTS, HOOK, max_new_tokens=4)
    expected = by_hand.query("variant == 'v'")["completion"]
    assert texts["completion"].tolist() == expected.tolist()


def test_a_kl_that_no_push_reaches_is_refused_in_a_sentence(random_model, small_sae):
    sentence = (
        r"^feature_3 does not reach a mean KL of 500: even a push of norm .* choose a smaller KL$"
    )
    with pytest.raises(ss.InputError, match=sentence):
        ss.sweep(random_model, small_sae, TEXTS, **(KL | {"alphas": [500]}))


def test_vectors_of_ones_own_are_not_swept_in_units_of_a_max(random_model, small_sae):
    settings = KL | {"features": None, "alpha_unit": "max_act"}
    with pytest.raises(ss.InputError, match="has no A_max"):
        ss.sweep(random_model, small_sae, TEXTS, directions=torch.eye(32)[:1], **settings)


def test_what_leaves_a_layer_is_what_enters_the_next(random_model):
    post = logit_sweep(random_model, "blocks.1.hook_resid_post")
    assert post.unsteered_pass.site.layer == 2
    assert measured(post).equals(measured(logit_sweep(random_model)))


HOOKS = ("hook_mlp_out", "hook_attn_out", "hook_resid_mid", "hook_resid_post", "hook_resid_pre")


@pytest.mark.parametrize("layer", (2, 3))
@pytest.mark.parametrize("hook", HOOKS)
def test_rows_at_each_hook_equal_one_prompt_at_a_time(random_model, hook, layer):
    sweep = logit_sweep(random_model, f"blocks.{layer}.{hook}")
    assert sweep.full_pass_reason is None
    assert_same(measured(sweep), one_at_a_time(sweep))


@pytest.mark.parametrize("hook", HOOKS)
def test_a_bridge_gives_the_same_rows_where_it_can_be_edited(random_model, random_bridge, hook):
    plain = logit_sweep(random_bridge, f"blocks.2.{hook}")
    assert "TransformerBridge" in (plain.full_pass_reason or "")
    if hook == "hook_resid_mid":
        with pytest.raises(ss.InputError, match="do not take effect in a TransformerBridge"):
            measured(plain)
    else:
        assert_same(measured(plain), measured(logit_sweep(random_model, f"blocks.2.{hook}")))


LEFT_ALONE = {
    "special tokens": {"exclude_special_tokens": True},
    "sinks": {"max_norm": 1.1},
    "both, before the answer": {"exclude_special_tokens": True, "max_norm": 1.1}
    | {"positions": "prompt"},
    "the last alone": {"positions": "last", "exclude_special_tokens": True},
}


@pytest.mark.parametrize(
    ("model", "hook_name"),
    [
        ("random_model", HOOK),
        ("random_model", "blocks.2.hook_mlp_out"),
        ("random_bridge", "blocks.2.hook_mlp_out"),
    ],
)
@pytest.mark.parametrize("case", LEFT_ALONE)
def test_what_a_sweep_leaves_alone_is_what_a_context_does(request, model, hook_name, case):
    where = LEFT_ALONE[case]
    sweep = logit_sweep(request.getfixturevalue(model), hook_name, **where)
    ours = measured(sweep)
    assert_same(ours, one_at_a_time(sweep, **where))
    assert ours.query("cell == 0")["receipt_positions"].sum() < sum(map(len, sweep.prompts))


def test_a_prompt_with_nothing_left_to_steer_is_refused(random_model):
    ending = [[5, 6, 7], [8, 9, SPECIAL]]
    sweep = logit_sweep(random_model, prompts=ending, positions="last", exclude_special_tokens=True)
    with pytest.raises(ss.InputError, match="at least one prompt has no steered position"):
        measured(sweep)
    fine = based(sweep, prompts=ending[:1])
    assert set(measured(fine)["receipt_positions"]) == {1}


def test_the_limit_of_norms_is_that_of_the_hook_that_is_steered(random_model):
    sweep = logit_sweep(random_model, "blocks.2.hook_mlp_out", max_norm=1.1)
    for prompt, ids in enumerate(sweep.prompts):
        tokens = torch.tensor([ids])
        resid = run_to_hook(
            random_model, tokens, torch.ones_like(tokens).bool(), sweep.unsteered_pass.hook_name
        )
        norms = resid[0].norm(dim=-1)
        expected = norms <= 1.1 * norms.median()
        assert torch.equal(sweep.unsteered_pass.chosen[prompt, -len(ids) :], expected)
