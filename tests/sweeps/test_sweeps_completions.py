"""Steered completions in one batch are what each would be alone."""

from dataclasses import replace

import pytest
import torch
from model.model_batches import rows

from saelens_steer.config import CompletionSpec, SweepSpec
from saelens_steer.data import Prompt
from saelens_steer.metrics import resolve_metrics
from saelens_steer.model import generate, stop_token_ids
from saelens_steer.steering import add, feature_directions, steered
from saelens_steer.sweeps import CompletionSweep, UnsteeredPass, run_completions
from saelens_steer.sweeps.tables import completion_table

HOOK = "blocks.2.hook_resid_pre"


@pytest.fixture(scope="module")
def sweep(random_model, small_sae) -> CompletionSweep:
    names = ["code_validity", "latex_first"]
    return CompletionSweep(
        unsteered_pass=UnsteeredPass(
            model=random_model,
            hook_name=HOOK,
            prompts=[row[0].tolist() for row in rows()],
            batch_tokens=64,
            new_tokens=6,
        ),
        directions=feature_directions(small_sae, [3, 5], "raw"),
        cells=[(0, 0.0), (0, -3.0), (1, 3.0)],
        metrics=resolve_metrics(names, random_model.tokenizer, random_model.cfg.d_vocab),
        spec=CompletionSpec(max_new_tokens=6),
    )


@pytest.mark.slow
def test_a_batch_of_mixed_directions_equals_one_by_one(sweep):
    table = run_completions(sweep).set_index(["cell", "prompt"])
    assert len(table) == 3 * 4
    for (cell, prompt), row in table.iterrows():
        which, alpha = sweep.cells[cell]
        tokens = torch.tensor([sweep.prompts[prompt]])
        with steered(sweep.model, add(sweep.directions.vectors[which], alpha), HOOK):
            new = generate(sweep.model, tokens, torch.ones_like(tokens).bool(), 6)[0].tolist()
        stops = stop_token_ids(sweep.model)
        end = next((i for i, t in enumerate(new) if t in stops), None)
        expected = sweep.model.tokenizer.decode(new[:end], skip_special_tokens=True)
        assert row["completion"] == expected
        assert row["truncated"] == (end is None)


def test_sampling_repeats_itself_whatever_was_drawn_before(sweep):
    hot = replace(sweep, spec=CompletionSpec(max_new_tokens=6, temperature=1.0, samples=2))
    first = run_completions(hot)
    torch.rand(17)
    second = run_completions(hot)
    assert first.equals(second)
    other = first.pivot(index=["cell", "prompt"], columns="sample", values="completion")
    assert (other[0] != other[1]).any()


def test_the_unsteered_text_stands_under_every_direction(sweep):
    prompts = [Prompt(f"p{i}", "text", "d") for i in range(4)]
    table = completion_table(sweep, run_completions(sweep), prompts, SweepSpec())
    plain = table[table["alpha"] == 0].pivot(
        index="prompt_id", columns="direction", values="completion"
    )
    assert set(plain.columns) == {"feature_3", "feature_5"}
    assert (plain["feature_3"] == plain["feature_5"]).all()
