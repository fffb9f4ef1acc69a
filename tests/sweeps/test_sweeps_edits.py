"""Any edit that acts at one hook is swept from that hook on; any other in whole passes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from model.model_batches import rows
from sweeps.passes import based

from saelens_steer.config import CompletionSpec
from saelens_steer.metrics import LogitMetric, resolve_metrics
from saelens_steer.steering import Edit, plain_directions, set_to
from saelens_steer.steering.edits import project_out
from saelens_steer.steering.sae_edits import ablate, reconstruct, scale, suppress_and_boost
from saelens_steer.sweeps import (
    CompletionSweep,
    LogitSweep,
    Store,
    UnsteeredPass,
    grid,
    run_completions,
)
from saelens_steer.sweeps.logits import run_logits


def edits_of(sae) -> list[Edit]:
    edits = {
        "project_out": project_out(sae.W_dec[3]),
        "ablate": ablate(sae, 3),
        "scale": scale(sae, 5, 3.0),
        "set": set_to(sae, 3, 2.0),
        "boost": suppress_and_boost(sae, 5, 4.0),
        "splice": reconstruct(sae),
    }
    return [replace(edit, key=key) for key, edit in edits.items()]


def sweep_of(model, edits, **settings) -> LogitSweep:
    """A cell for each edit; the directions only give them names."""
    unsteered_pass = UnsteeredPass(
        model=model,
        hook_name="blocks.2.hook_resid_pre",
        prompts=[row[0].tolist() for row in rows()],
        **settings,
    )
    metrics = resolve_metrics(["kl"], model.tokenizer, 512)
    return LogitSweep(
        unsteered_pass=unsteered_pass,
        directions=plain_directions(torch.eye(len(edits), model.cfg.d_model)),
        cells=grid(len(edits), (1.0,)),
        edits=edits,
        metrics=[m for m in metrics if isinstance(m, LogitMetric)],
    )


@pytest.mark.parametrize("positions", ["all", "last"])
def test_rows_of_every_edit_are_those_of_whole_passes(random_model, small_sae, positions):
    sweep = sweep_of(random_model, edits_of(small_sae), positions=positions)
    assert sweep.full_pass_reason is None
    fast, whole = (
        run_logits(s).sort_values(["cell", "prompt"])
        for s in (sweep, based(sweep, whole_passes=True))
    )
    for column in ("kl", "receipt_rel_norm", "receipt_positions"):
        np.testing.assert_allclose(fast[column], whole[column], atol=1e-5, rtol=1e-4)
    moved = fast[fast["cell"] >= 0].groupby("cell")["receipt_rel_norm"].max()
    assert (moved > 1e-3).all(), "every edit does something here"


def test_an_edit_that_looks_at_other_positions_takes_whole_passes_and_says_so(
    random_model, small_sae, capsys
):
    averaged = Edit("mean", lambda x: x.mean(1, keepdim=True).expand_as(x), False)
    sweep = sweep_of(random_model, [*edits_of(small_sae)[:1], averaged])
    assert len(run_logits(sweep)) == 3 * len(sweep.prompts)
    assert "more than one position" in (sweep.full_pass_reason or "")
    assert "full forward pass" in capsys.readouterr().err


def test_two_edits_of_one_direction_are_two_answers_in_a_store(random_model, small_sae, tmp_path):
    store = Store(tmp_path, "k")
    one, other = (
        run_logits(sweep_of(random_model, [named]), store) for named in edits_of(small_sae)[2:4]
    )
    assert not one["kl"].equals(other["kl"])


def test_texts_under_edits_are_those_that_the_model_writes_by_itself(random_model, small_sae):
    sweep = sweep_of(random_model, edits_of(small_sae), new_tokens=6)
    texts = CompletionSweep(
        unsteered_pass=sweep.unsteered_pass,
        directions=sweep.directions,
        cells=sweep.cells,
        edits=sweep.edits,
        metrics=[],
        spec=CompletionSpec(max_new_tokens=6),
    )
    ours, theirs = (
        run_completions(s).sort_values(["cell", "prompt"], ignore_index=True)
        for s in (texts, based(texts, whole_passes=True))
    )
    assert ours.equals(theirs)
    assert ours.groupby("prompt")["completion"].nunique().max() > 1
