"""The study in a small form: from the model's wheel to the report and the study's answers."""

from pathlib import Path

import pandas as pd
import pytest
from smollm2 import smollm2_gguf

import saelens_steer as ss
from saelens_steer.evidence.claims import FAILS, PASSES
from scripts.smollm2 import answer

CONFIG = "configs/smollm2/code_vs_math.yaml"
SMALL = (
    "select.answer_tokens=6",
    "sweep.controls=covariance",
    "sweep.completions={max_new_tokens: 32, top: 1, n_controls: 2}",
)


def study(folder: Path, n_prompts: int, n_controls: int) -> ss.Result:
    size = (
        f"prompts.limit={n_prompts}",
        "sweep.controls=covariance",
        f"sweep.n_controls={n_controls}",
    )
    report = ss.run(CONFIG, folder, overrides=(f"model.name={smollm2_gguf()}", *SMALL, *size))
    assert report.name == "report.html"
    return ss.Result.load(folder)


@pytest.mark.slow
def test_a_small_form_answers_both_claims_and_is_part_of_a_larger_one(tmp_path, capsys):
    small = study(tmp_path / "run", n_prompts=3, n_controls=20)
    claims = small.claims.set_index("metric")
    assert claims.loc[answer.OUTCOME, "verdict"] in (PASSES, FAILS)
    (feature,) = claims["feature"].unique()
    assert not ss.load_sae(tmp_path / "run" / "sae").cfg.metadata.get("frozen_decoder")
    answer.main(str(tmp_path / "run"))
    said = capsys.readouterr().out
    assert "covariance: p = " in said and answer.TEXT in said
    larger = study(tmp_path / "run", n_prompts=4, n_controls=23)
    keys = ["direction", "alpha", "prompt_id"]
    both = small.rows.merge(larger.rows, on=keys, suffixes=("", "_larger"))
    assert len(both) == len(small.rows) and feature in set(both["feature"].dropna())
    for metric in (answer.OUTCOME, "math_margin", "kl"):  # up to the packing of the rows
        pd.testing.assert_series_equal(
            both[metric], both[f"{metric}_larger"], check_names=False, atol=5e-5, rtol=0
        )
