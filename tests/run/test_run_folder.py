"""A small run, end to end: its files, and no stale results."""

import hashlib
import json
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml
from checkpoints import put_in_hub_cache, random_qwen3
from processes import finished, ran

pytestmark = pytest.mark.slow

SMALL = [
    "sae.train.training_tokens=20000",
    "sae.train.d_sae=128",
    "prompts.limit=6",
    "select.k=3",
    "sweep.n_controls=150",
    "sweep.completions.max_new_tokens=24",
    "sweep.batch_tokens=2048",
    "label={max_new_tokens: 6, n_prompts: 4}",
]


def command(out: Path, *overrides: str) -> list[str]:
    sets = [part for pair in (*SMALL, *overrides) for part in ("--set", pair)]
    return [sys.executable, "-m", "saelens_steer.cli", "demo", "--out", str(out), *sets]


def digests(folder: Path) -> dict[str, str]:
    """File → sha256, for every file of a run folder."""
    files = [p for p in folder.rglob("*") if p.is_file()]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    assert finished(command(folder)).strip().splitlines()[-1] == str(folder / "report.html")
    return folder


def test_the_folder_has_the_promised_files(run):
    for name in (
        "config.yaml",
        "provenance.json",
        "features.json",
        "completions.jsonl",
        "interference.csv",
        "interference.json",
        "claims.csv",
        "controls.csv",
        "warnings.json",
        "report.html",
        "sae/cfg.json",
        "sae/sae_weights.safetensors",
        "sae/metrics.jsonl",
        "sae/quality.json",
        "sae/audit.json",
    ):
        assert (run / name).is_file(), name
    assert list((run / "plots").glob("*.html"))
    assert list((run / "activations").glob("*.safetensors"))
    assert not list(run.rglob("*.tmp"))


def test_the_tables_have_the_promised_columns(run):
    rows = pd.concat([pd.read_parquet(p) for p in (run / "sweep").glob("*.parquet")])
    for column in ("direction", "family", "feature", "edit", "alpha", "alpha_unit"):
        assert column in rows
    found = json.loads((run / "features.json").read_text())
    n = 150 + len(found["code_candidates"]) + len(found["math_candidates"])
    assert len(rows) == n * 5 * 6
    summary = pd.read_csv(run / "interference.csv")
    assert len(summary) == n * 5
    for metric in ("math_margin", "kl", "latex_first"):
        for suffix in ("", "_delta", "_ci_low", "_ci_high"):
            assert metric + suffix in summary
    claims = pd.read_csv(run / "claims.csv")
    for column in ["effect", "control_quantile", "n_controls", "p_value", "q_value", "verdict"]:
        assert column in claims
    texts = [json.loads(line) for line in (run / "completions.jsonl").read_text().splitlines()]
    assert {t["family"] for t in texts} == {"candidate", "covariance"}


def test_the_unsteered_rows_are_the_same_for_every_direction(run):
    rows = pd.read_parquet(next((run / "sweep").glob("*.parquet")))
    zero = rows[rows["alpha"] == 0]
    assert (zero.groupby("prompt_id")["math_margin"].nunique() == 1).all()
    assert (zero["kl"] == 0).all()
    assert (rows[rows["alpha"] != 0]["receipt_positions"] > 0).all()


def test_plain_saelens_opens_the_sae(run):
    from sae_lens import SAE

    sae = SAE.load_from_disk(str(run / "sae"))
    assert sae.cfg.d_in == 192
    assert sae.cfg.metadata.hook_name == "blocks.4.hook_resid_pre"


def test_running_it_again_computes_nothing_and_changes_no_byte(run):
    before = digests(run)
    start_time = time.monotonic()
    finished(command(run))
    assert time.monotonic() - start_time < 60
    assert digests(run) == before


def test_a_changed_input_never_gets_an_old_result(run, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    finished(command(copy, "sweep.alphas=[-8,0,8]"))
    summary = pd.read_csv(copy / "interference.csv")
    assert sorted(set(summary["alpha"])) == [-8.0, 0.0, 8.0]
    assert (copy / "sae/metrics.jsonl").read_bytes() == (run / "sae/metrics.jsonl").read_bytes()
    assert yaml.safe_load((copy / "config.yaml").read_text())["sweep"]["alphas"] == [-8, 0, 8]


def test_the_real_config_runs_end_to_end_on_a_random_qwen3_under_the_real_id(tmp_path):
    source = random_qwen3(
        tmp_path / "random", rope_parameters={"rope_type": "default", "rope_theta": 5e6}
    )
    put_in_hub_cache(tmp_path / "hub", "Qwen/Qwen3-4B-Instruct-2507", source)
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n\n".join(f"def f{i}(x):\n    return x + {i}" for i in range(400)))
    overrides = {
        "model.dtype": "float32",
        "hook_name": "blocks.2.hook_resid_pre",
        "prompts.limit": 4,
        "sae.train.corpus": str(corpus),
        "sae.train.d_sae": 64,
        "sae.train.training_tokens": 8000,
        "sae.train.batch_tokens": 512,
        "sae.train.context_size": 64,
        "select.answer_tokens": 8,
        "select.k": 2,
        "sweep.n_controls": 20,
        "sweep.batch_tokens": 4096,
        "sweep.completions.max_new_tokens": 8,
        "label.max_new_tokens": 4,
    }
    out = ran(
        "configs/qwen3_4b_instruct_code_vs_math.yaml",
        tmp_path / "run",
        overrides,
        HF_HUB_CACHE=str(tmp_path / "hub"),
    )
    known = json.loads((out / "provenance.json").read_text())
    assert known["model"]["name"] == "Qwen/Qwen3-4B-Instruct-2507"
    assert "not testable with 20 controls" in (out / "claims.csv").read_text()


@pytest.mark.nightly
def test_a_study_that_is_not_code_against_mathematics_runs_from_its_config(tmp_path):
    small = {"sae.train.training_tokens": 20000, "prompts.limit": 6, "sweep.n_controls": 20}
    small["label.max_new_tokens"] = 4
    out = ran("configs/tiny/transport_vs_prose.yaml", tmp_path / "run", small)
    claims = pd.read_csv(out / "claims.csv")
    assert {"story_margin", "kl", "mentions_transport"} == set(claims["metric"])
    few = "Only 6 prompts were steered: intervals over fewer than 10 are unreliable."
    assert few in json.loads((out / "warnings.json").read_text())
    assert few in (out / "report.html").read_text(encoding="utf-8")
    found = json.loads((out / "features.json").read_text())
    assert found["transport_candidates"]
