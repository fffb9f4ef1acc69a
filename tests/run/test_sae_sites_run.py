"""Runs with SAEs that do not read and write the residual stream."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from saes import random_sae
from transcoders import random_transcoder

import saelens_steer as ss
from saelens_steer.errors import InputError

SMALL = {
    "prompts": {"limit": 4},
    "metrics": ["kl"],
    "select": {"k": 1},
    "sweep": {"n_controls": 8, "alphas": [-1, 0, 1], "alpha_unit": "resid_norm"},
    "label": None,
    "tradeoffs": None,
    "compare_directions": None,
    "compare_edits": None,
}


def config(hook_name: str, sae: object, folder: Path) -> dict[str, object]:
    sae.save_model(str(folder))  # type: ignore[attr-defined]
    return {**SMALL, "hook_name": hook_name, "sae": {"load": {"source": str(folder)}}}


@pytest.mark.slow
def test_a_run_works_at_all_heads(tiny_model, tmp_path):
    width, hook_name = tiny_model.cfg.n_heads * tiny_model.cfg.d_head, "blocks.4.attn.hook_z"
    given = config(hook_name, random_sae(width, hook_name), tmp_path / "sae")
    ss.run(given, tmp_path / "run", until="sweep")
    rows = pd.read_parquet(tmp_path / "run" / "sweep")
    assert set(rows["hook_name"]) == {hook_name}
    assert rows.loc[rows["alpha"] != 0, "kl"].min() > 0
    assert ss.load_sae(tmp_path / "run" / "sae").cfg.d_in == width


def test_a_run_refuses_a_transcoder_before_it_starts(tiny_model, tmp_path):
    out = "blocks.4.hook_mlp_out"
    given = config(out, random_transcoder(tiny_model.cfg.d_model, 4), tmp_path / "sae")
    with pytest.raises(InputError, match=r"reads from blocks\.4\.mlp\.hook_in.*Python functions"):
        ss.run(given, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_logits_of_decoder_rows_are_no_score_at_all_heads(tiny_model, tmp_path):
    width, hook_name = tiny_model.cfg.n_heads * tiny_model.cfg.d_head, "blocks.4.attn.hook_z"
    given = config(hook_name, random_sae(width, hook_name), tmp_path / "sae")
    given["select"] = {"score": "output_score"}
    with pytest.raises(InputError, match="does not write to the residual stream"):
        ss.run(given, tmp_path / "run")
