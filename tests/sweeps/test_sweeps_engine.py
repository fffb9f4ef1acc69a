"""The batched sweep gives what one row at a time through the whole model gives."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hugging import hugging_face, last_logits, resid_pre_changed
from model.model_batches import rows
from sweeps.passes import based

from saelens_steer.config import MarginMetric, TokenSetSpec
from saelens_steer.data import complement, token_set
from saelens_steer.metrics import LogitMetric, kl, resolve_metrics
from saelens_steer.metrics.metric import logit_margin
from saelens_steer.steering import (
    feature_directions,
    matched_controls,
    plain_directions,
    positions,
)
from saelens_steer.sweeps import LogitSweep, Store, UnsteeredPass, grid
from saelens_steer.sweeps.logits import run_logits
from saelens_steer.sweeps.measurement import generating

HOOK = "blocks.2.hook_resid_pre"
MARGIN = {"margin": {"name": "m", "target": {"ids": [40, 41]}}}


@pytest.fixture(scope="module")
def sweep(random_model, small_sae) -> LogitSweep:
    specs = [MarginMetric.model_validate(MARGIN), "kl"]
    metrics = resolve_metrics(specs, random_model.tokenizer, random_model.cfg.d_vocab)
    directions = feature_directions(small_sae, [3, 5], "raw")
    return LogitSweep(
        unsteered_pass=UnsteeredPass(
            model=random_model,
            hook_name=HOOK,
            prompts=[row[0].tolist() for row in rows()],
            batch_tokens=64,
        ),
        directions=directions,
        cells=grid(2, (-4.0, 0.0, 4.0)),
        metrics=metrics,
        sae=small_sae,
    )


def test_every_row_equals_a_hugging_face_hook_on_that_prompt_alone(sweep, random_folder):
    reference = hugging_face(random_folder)
    tokenizer, d_vocab = sweep.model.tokenizer, sweep.model.cfg.d_vocab
    target = token_set(TokenSetSpec(ids=(40, 41)), tokenizer, d_vocab)
    other = complement(target, tokenizer, d_vocab)
    table = run_logits(sweep).set_index(["cell", "prompt"])
    assert len(table) == 4 + 4 * 4
    for (cell, prompt), row in table.iterrows():
        tokens = torch.tensor([sweep.prompts[prompt]])
        mask = torch.ones_like(tokens).bool()
        plain = last_logits(reference, tokens, mask)
        which, alpha = sweep.cells[cell] if cell >= 0 else (0, 0.0)
        push = alpha * sweep.directions.vectors[which]
        with resid_pre_changed(reference, 2, lambda x, push=push: x + push):
            logits = last_logits(reference, tokens, mask)
        assert row["m"] == pytest.approx(float(logit_margin(logits, target, other)), abs=1e-4)
        assert row["kl"] == pytest.approx(float(kl(logits, baseline=plain)), abs=1e-4)


def test_the_plain_path_agrees_with_the_prefix_path(sweep, random_bridge):
    fast = run_logits(sweep)
    plain = run_logits(based(sweep, model=random_bridge))
    assert sweep.full_pass_reason is None
    assert "TransformerBridge" in (based(sweep, model=random_bridge).full_pass_reason or "")
    fast = fast.sort_values(["cell", "prompt"])
    plain = plain.sort_values(["cell", "prompt"])
    for column in ("m", "kl", "receipt_positions", "receipt_rel_norm", "receipt_feature_act"):
        torch.testing.assert_close(
            torch.tensor(fast[column].to_numpy(float)),
            torch.tensor(plain[column].to_numpy(float)),
            atol=1e-4,
            rtol=0,
            equal_nan=True,
        )


def test_another_batch_size_changes_no_more_than_rounding(sweep):
    one = run_logits(based(sweep, batch_tokens=1)).sort_values(["cell", "prompt"])
    many = run_logits(based(sweep, batch_tokens=4096)).sort_values(["cell", "prompt"])
    for column in ("m", "kl"):
        assert abs(one[column].to_numpy() - many[column].to_numpy()).max() < 1e-5


def test_the_same_plan_gives_the_same_bytes(sweep):
    first, second = (run_logits(sweep) for _ in range(2))
    assert first.equals(second)


def test_last_steers_one_position_and_all_steers_each(sweep):
    everywhere = run_logits(sweep).query("cell >= 0")
    last = run_logits(based(sweep, positions="last")).query("cell >= 0")
    lengths = [len(sweep.prompts[p]) for p in everywhere["prompt"]]
    assert everywhere["receipt_positions"].tolist() == lengths
    assert set(last["receipt_positions"]) == {1}


def test_the_receipt_holds_the_feature_after_re_encoding(sweep, small_sae):
    table = run_logits(sweep).query("cell >= 0")
    row = table.iloc[0]
    which, alpha = sweep.cells[int(row["cell"])]
    tokens = torch.tensor([sweep.prompts[int(row["prompt"])]])
    _, cache = sweep.model.run_with_cache(tokens)
    moved = cache[HOOK] + alpha * sweep.directions.vectors[which]
    z = small_sae.encode(moved)[0, :, sweep.directions.features[which]]
    assert row["receipt_feature_act"] == pytest.approx(float(z.detach().mean()), rel=1e-4, abs=1e-5)
    relative = alpha * sweep.directions.vectors[which].norm() / cache[HOOK].norm(dim=-1)
    assert row["receipt_rel_norm"] == pytest.approx(float(relative.detach().abs().mean()), rel=1e-4)


def test_controls_have_the_norm_of_what_they_are_compared_with(small_sae):
    tested = feature_directions(small_sae, [3, 5], "raw")
    units = torch.eye(small_sae.cfg.d_in)[:4]
    controls = matched_controls("isotropic", units, tested.sizes)
    assert len(controls) == 8  # two norms, four controls each
    expected = sorted(tested.vectors.norm(dim=-1).repeat_interleave(4).tolist())
    assert sorted(controls.vectors.norm(dim=-1).tolist()) == pytest.approx(expected)
    assert set(controls.sizes) == set(tested.sizes)
    shared = matched_controls(
        "isotropic", units, feature_directions(small_sae, [3, 5], "unit").sizes
    )
    assert len(shared) == 4
    assert shared.names[0] == "isotropic_0000"


def test_vectors_of_ones_own_take_a_features_place():
    directions = plain_directions(torch.eye(3))
    assert directions.names == ("direction_0", "direction_1", "direction_2")
    assert set(directions.families) == {"candidate"}


def test_rows_of_a_half_precision_decoder_are_of_one_size():
    units = torch.nn.functional.normalize(torch.randn(20, 512), dim=-1)
    for dtype in (torch.bfloat16, torch.float16):
        assert len(set(plain_directions(units.to(dtype)).sizes)) == 1
    assert len(set(plain_directions(torch.stack([units[0], 1.01 * units[0]])).sizes)) == 2


def test_unit_strength_normalises_vectors_of_ones_own_too():
    assert plain_directions(5 * torch.eye(3), "unit").vectors.equal(torch.eye(3))


def test_completions_have_controls_of_every_size_that_was_chosen(small_sae):
    tested = feature_directions(small_sae, [3, 5], "raw")
    everything = tested + matched_controls("isotropic", torch.eye(32)[:4], tested.sizes)
    which = everything.take(generating(everything, [0, 1], 1))
    assert which.sizes[:2] == tested.sizes
    assert sorted(which.sizes[2:]) == sorted(tested.sizes)


def test_committed_shards_are_not_computed_again_and_another_key_never_sees_them(sweep, tmp_path):
    first = run_logits(sweep, Store(tmp_path, "key"))

    def refuse(logits, baseline):
        raise AssertionError("computed a committed shard")

    again = replace(sweep, metrics=[LogitMetric("m", refuse)])
    assert run_logits(again, Store(tmp_path, "key")).equals(first)
    with pytest.raises(AssertionError, match="computed"):
        run_logits(again, Store(tmp_path, "other"))


@pytest.mark.parametrize("positions", ["all", "last"])
@pytest.mark.parametrize("ends", [[0], [0, 1], [0, 1, 2, 3]])
def test_prompts_that_end_in_the_padding_token_are_steered_alike_in_every_tier(
    sweep, random_bridge, positions, ends
):
    pad = sweep.model.tokenizer.pad_token_id
    prompts = [[*p, pad] if i in ends else p for i, p in enumerate(sweep.prompts)]
    tree, whole, bridge = (
        run_logits(based(sweep, prompts=prompts, positions=positions, **more)).sort_values(
            ["cell", "prompt"]
        )
        for more in ({}, {"whole_passes": True}, {"model": random_bridge})
    )
    for other in (whole, bridge):
        for column in ("m", "kl", "receipt_positions", "receipt_rel_norm"):
            np.testing.assert_allclose(other[column], tree[column], atol=1e-4, rtol=0)
    assert (tree.query("cell >= 0")["kl"] > 0).all()


def test_rows_are_refused_if_the_hook_steered_other_positions_than_planned(sweep, monkeypatch):
    monkeypatch.setattr(positions.Tracker, "_now", lambda self, shown, b, n: torch.eye(b, n) > 0)
    with pytest.raises(RuntimeError, match=r"steered .* positions in 1 passes"):
        run_logits(based(sweep, whole_passes=True))
