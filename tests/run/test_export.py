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
from saelens_steer.errors import InputError
from saelens_steer.files import write_bytes, write_json, write_text
from saelens_steer.pipeline.context import RunContext
from saelens_steer.pipeline.run import carry_out
from saelens_steer.pipeline.step_table import dependants, step
from saelens_steer.report import export_images, images
from saelens_steer.run_folder import RunFolder
from saelens_steer.sae import save_sae
from saelens_steer.steering import load_vectors, save_vectors

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


def test_a_file_that_is_there_is_kept_under_another_name(run, said, tmp_path):
    file = tmp_path / "v.safetensors"
    save_vectors(file, {"mine": torch.ones(16)}, HOOK)
    before = file.read_bytes()
    status, printed, err = said("export", run, file)
    assert (status, printed) == (0, f"{file}\n")
    renamed = tmp_path / "v.earlier-1.safetensors"
    assert f"{file} already existed: its earlier version is now {renamed}" in err
    assert renamed.read_bytes() == before


def test_a_file_stays_in_its_place_if_the_new_one_cannot_be_written(
    run, said, tmp_path, monkeypatch
):
    def full(*args, **named):
        raise InputError("No space left on device")

    file = tmp_path / "v.safetensors"
    file.write_bytes(b"mine")
    monkeypatch.setattr("saelens_steer.pipeline.export.save_vectors", full)
    status, _, err = said("export", run, file)
    assert status == 2 and "No space left on device" in err
    assert [p.name for p in tmp_path.glob("v*")] == [file.name] and file.read_bytes() == b"mine"


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
        ("v.gguf", ("--feature", 32), "feature 32 is out of range: the SAE has features 0 to 31"),
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


@pytest.fixture
def drawn(tmp_path, monkeypatch) -> Path:
    """A run folder with a sweep, a report and images, without a model or a browser."""
    stage = import_module("saelens_steer.pipeline.steps.report")
    monkeypatch.setattr(stage, "headline", lambda claims, summary: "an answer")
    monkeypatch.setattr(images, "find_browser", lambda: "browser")
    monkeypatch.setattr(images, "pictures", lambda _, figures, __: dict.fromkeys(figures, b"image"))
    monkeypatch.setattr(images, "pdf", lambda *_: b"%PDF-new")
    folder = tmp_path / "drawn"
    sweep(folder, 1)
    report(folder, "1")
    assert export_images(folder) == folder / "report.pdf"
    return folder


def sweep(run: Path, number: int) -> None:
    """Write the tables of a run as the step sweep does."""

    def make() -> None:
        synthetic.write_run(made := run.parent / f"made-{number}")
        for name in ("interference.csv", "claims.csv", "completions.jsonl"):
            write_bytes(run / name, (made / name).read_bytes())
        write_text(run / "warnings.json", "[]")

    RunFolder(run, dependants).do("sweep", [number], ["interference.csv"], make)


def report(run: Path, key: str) -> str:
    """Rebuild the report for a sweep of this key; returns its text."""
    keys = {"sweep": key, "select": "1"}
    folder = RunFolder(run, dependants)
    carry_out(
        step("report"), RunContext(parse_config({}, []), folder, None, HOOK, (), (), keys=keys)
    )
    return (run / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_images_are_current_as_long_as_their_report_is(drawn):
    report(drawn, "1")
    assert RunFolder(drawn).stale() == []
    before = {p: p.read_bytes() for p in [*drawn.glob("plots/*.png"), drawn / "report.pdf"]}
    text = report(drawn, "2")
    assert len(before) > 3 and {path: path.read_bytes() for path in before} == before
    old = sorted(str(path.relative_to(drawn)) for path in before)
    assert RunFolder(drawn).stale() == old
    assert "Files kept from an earlier config" in text
    assert all(f"<code>{name}</code>" in text for name in old)
    export_images(drawn)
    assert RunFolder(drawn).stale() == []


@pytest.mark.slow
def test_after_another_sweep_nothing_old_is_exported_and_nothing_is_lost(drawn):
    before = {str(p.relative_to(drawn)) for p in drawn.rglob("*") if p.is_file()}
    sweep(drawn, 2)
    with pytest.raises(InputError, match=r"no current report\.html: run the report there first"):
        export_images(drawn)
    assert before <= {str(p.relative_to(drawn)) for p in drawn.rglob("*") if p.is_file()}
    old = RunFolder(drawn).stale()
    assert {"report.html", "report.pdf", "plots/plotly.min.js"} <= {*old}
    assert "interference.csv" not in old


@pytest.mark.slow
def test_an_annotated_image_is_kept_and_a_users_own_is_refused_or_left_alone(drawn, capsys):
    figure = next(iter(drawn.glob("plots/*.png")))
    figure.write_bytes(b"annotated")
    (drawn / "plots/mine.png").write_bytes(b"mine")
    export_images(drawn)
    assert figure.read_bytes() == b"image"
    assert figure.with_name(f"{figure.stem}.edited-1.png").read_bytes() == b"annotated"
    assert "was edited: your version is kept as" in capsys.readouterr().err
    (drawn / ".steps/report.json").unlink()
    with pytest.raises(InputError, match="which this run did not write"):
        export_images(drawn)
    assert (drawn / "plots/mine.png").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("stale", "options", "complaint"),
    [
        ("select", (), "names no candidates: run the select step there"),
        ("train", (), "names no candidates"),
        ("train", ("--feature", 3), "holds no SAE: run the train step there"),
    ],
)
def test_vectors_of_a_stale_selection_or_sae_are_not_exported(
    tmp_path, said, stale, options, complaint
):
    folder = RunFolder(tmp_path / "run", dependants)
    known = {"positive": "code", "code_candidates": [7], "hook_name": HOOK}
    folder.do("train", [1], ["sae"], lambda: save_sae(random_sae(16), folder.path("sae")))
    write = lambda: write_json(folder.path("features.json"), known)  # noqa: E731
    folder.do("select", [1], ["features.json"], write)
    assert said("export", folder.root, tmp_path / "before.gguf")[0] == 0
    folder.drop(stale)
    assert complaint in said("export", folder.root, tmp_path / "after.gguf", *options)[2]
    assert folder.path("sae/cfg.json").exists() and folder.path("features.json").exists()
