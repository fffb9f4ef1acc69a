"""Exports of a finished run: steering vectors, and images that match the report."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import gguf
import pytest
import torch
from report import synthetic
from saes import random_sae

from saelens_steer.config import parse_config
from saelens_steer.pipeline.context import RunContext
from saelens_steer.pipeline.run import carry_out
from saelens_steer.pipeline.run_folder import RunFolder
from saelens_steer.pipeline.step_table import step
from saelens_steer.sae import save_sae
from saelens_steer.steering import load_vectors

HOOK = "blocks.2.hook_resid_pre"


@pytest.fixture
def run(tmp_path) -> Path:
    """A run folder with an SAE and its candidates."""
    folder = tmp_path / "run"
    save_sae(random_sae(16), folder / "sae")
    known = {"hook_name": HOOK, "positive": "code", "negative": "math"}
    chosen = {"code_candidates": [7, 3], "math_candidates": [30, 7]}
    (folder / "features.json").write_text(json.dumps(known | chosen))
    (folder / "provenance.json").write_text(json.dumps({"model": {"name": "tiny-qwen3"}}))
    return folder


def test_all_candidates_are_written_by_default_once_each(run, said, tmp_path):
    file = tmp_path / "v.safetensors"
    assert said("export", run, file) == (0, f"{file}\n", "")
    held, rows = load_vectors(file), random_sae(16).W_dec
    assert held.hook_names == dict.fromkeys(["feature_3", "feature_30", "feature_7"], HOOK)
    assert all(torch.equal(held.vectors[f"feature_{f}"], rows[f]) for f in (3, 7, 30))
    assert held.about["feature_30"] == {"feature": 30, "alpha": 1.0}
    assert held.model == "tiny-qwen3"


def test_features_and_alpha_can_be_chosen(run, said, tmp_path):
    file = tmp_path / "new" / "v.safetensors"
    options = ("--feature", 5, "--feature", 0, "--alpha", "-2.5")
    assert said("export", run, file, *options)[0] == 0
    held, rows = load_vectors(file), random_sae(16).W_dec.detach()
    assert {f: held.vectors[f].tolist() for f in held.vectors} == {
        f"feature_{f}": (rows[f] * -2.5).tolist() for f in (0, 5)
    }


def test_a_gguf_file_holds_the_vector_at_the_layer_before_the_hook(run, said, tmp_path):
    file = tmp_path / "v.gguf"
    assert said("export", run, file, "--feature", 3, "--alpha", 4)[1] == f"{file}\n"
    (tensor,) = gguf.GGUFReader(file).tensors
    assert tensor.name == "direction.1"
    assert tensor.data.tolist() == (random_sae(16).W_dec[3] * 4).tolist()
    assert load_vectors(file).about == {"feature_3": {"feature": 3, "alpha": 4.0}}


@pytest.mark.parametrize(
    "file, options, complaint",
    [
        ("v.gguf", (), "one vector per layer, not 3: choose one with --feature"),
        ("v.gguf", ("--feature", 32), "feature 32 is out of range: the SAE has 0 to 31"),
        ("v.gguf", ("--feature", -1), "feature -1 is out of range"),
        ("v.bin", (), "end in .safetensors or .gguf"),
        ("v.gguf", ("--feature", 3, "--alpha", "nan"), "alpha should be a finite number"),
        ("v.gguf", ("--feature", 3, "--alpha", "1e39"), "not finite"),
    ],
)
def test_an_impossible_export_is_one_sentence(run, said, tmp_path, file, options, complaint):
    status, out, err = said("export", run, tmp_path / file, *options)
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert complaint in err
    assert not (tmp_path / file).exists()


def test_a_folder_without_an_sae_or_without_candidates_is_refused(run, said, tmp_path):
    (run / "features.json").unlink()
    assert "names no candidates" in said("export", run, tmp_path / "v.gguf")[2]
    assert said("export", run, tmp_path / "v.gguf", "--feature", 3)[0] == 0
    (run / "sae").rename(tmp_path / "moved")
    assert "holds no SAE" in said("export", run, tmp_path / "v.gguf", "--feature", 3)[2]


def test_images_of_a_folder_without_a_report_are_refused(run, said):
    status, out, err = said("images", run)
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert "run the sweep there first" in err


@pytest.mark.slow
def test_rebuilding_the_report_removes_the_old_images(tmp_path, monkeypatch):
    stage = import_module("saelens_steer.pipeline.steps.report")
    monkeypatch.setattr(stage, "headline", lambda claims, summary: "an answer")
    folder = synthetic.write_run(tmp_path / "run")
    (folder / "warnings.json").write_text("[]")
    images = [folder / "report.pdf", folder / "plots" / "training.png"]

    def reported(sweep: str) -> list[bool]:
        keys = {"sweep": sweep, "select": "1"}
        run = RunContext(parse_config({}, []), RunFolder(folder), None, HOOK, (), (), keys=keys)
        carry_out(step("report"), run)
        return [image.exists() for image in images]

    reported("1")
    for image in images:
        image.write_bytes(b"old")
    assert reported("1") == [True, True]
    assert reported("2") == [False, False]


def test_rerunning_the_sweep_removes_the_reports_images(tmp_path):
    steps = RunFolder(tmp_path, lambda name: ("report",) if name == "sweep" else ())
    steps.do("report", [1], ["page"], lambda: (tmp_path / "page").touch(), ["page.pdf"])
    (tmp_path / "page.pdf").touch()
    steps.do("report", [1], ["page"], lambda: None, ["page.pdf"])
    assert (tmp_path / "page.pdf").exists()
    steps.do("sweep", [2], [], lambda: None)
    assert list(tmp_path.glob("page*")) == []
