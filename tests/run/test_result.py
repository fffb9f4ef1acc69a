"""A result that is saved, loaded and reported without a run."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from saes import random_sae
from typer.testing import CliRunner

import saelens_steer as ss
from saelens_steer.cli import app
from saelens_steer.files import write_text
from saelens_steer.pipeline.step_table import dependants
from saelens_steer.run_folder import RunFolder

HOOK = "blocks.4.hook_resid_pre"


@pytest.fixture(scope="module")
def result(tiny_model) -> ss.Result:
    sae = random_sae(tiny_model.cfg.d_model, HOOK)
    return ss.sweep(
        tiny_model,
        sae,
        ss.load_prompts("tiny-code-math-mixed", 4),
        features=[3, 5],
        alphas=(-2.0, 2.0),
        alpha_unit="unit",
        metrics=["kl", ss.margin(target="latex_delimiters", name="NA"), "distinct_words"],
        n_controls=24,
        completions={"max_new_tokens": 6, "top": 1, "n_controls": 1},
    )


@pytest.fixture(scope="module")
def loaded(result, tmp_path_factory) -> ss.Result:
    return ss.Result.load(result.save(tmp_path_factory.mktemp("saved") / "result"))


@pytest.mark.parametrize("table", ["rows", "summary", "claims", "by_family", "completions"])
def test_a_loaded_result_has_the_same_tables(result, loaded, table):
    own, other = getattr(result, table), getattr(loaded, table)
    pd.testing.assert_frame_equal(other, own, check_dtype=False)


def test_metrics_keep_their_order_whatever_they_read(tiny_model, tmp_path):
    result = ss.sweep(
        tiny_model, None, ss.load_prompts("tiny-code-math-mixed", 2),
        directions={"v": torch.ones(tiny_model.cfg.d_model)}, hook_name=HOOK,
        alphas=[1.0], alpha_unit="kl", metrics=["distinct_words", "kl"], n_controls=2,
        completions={"max_new_tokens": 4, "n_controls": 1},
    )  # fmt: skip
    assert result.metrics == ("distinct_words", "kl")
    assert ss.Result.load(result.save(tmp_path / "run")).metrics == result.metrics
    assert any("claims about kl test nothing" in warning for warning in result.warnings)


def test_warnings_that_only_the_run_could_give_are_kept(result, tmp_path):
    said = "Prompts '1' and '3' have the same tokens."
    kept = replace(result, stored_warnings=(said,)).save(tmp_path / "run")
    assert ss.Result.load(kept).warnings == [*result.warnings, said]


def test_a_loaded_result_says_the_same(result, loaded):
    assert loaded.headline == result.headline
    assert loaded.warnings == result.warnings
    assert loaded.metrics == result.metrics
    assert loaded.about["model"]["fingerprint"] == result.about["model"]["fingerprint"]
    assert repr(loaded) == repr(result)
    assert len(repr(result).splitlines()) <= 5
    assert "headline" not in result._repr_html_()


def test_the_page_is_that_of_the_saved_folder(result, loaded, tmp_path):
    first, second = (
        one.report(tmp_path / f"{i}" / "page.html") for i, one in enumerate((result, loaded))
    )
    assert first.read_text() == second.read_text()
    for sentence in (result.headline, "What was run", *result.warnings):
        assert sentence.split(":")[0].split("<")[0] in first.read_text().replace("&#39;", "'")


def test_a_folder_with_other_files_is_left_alone(result, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ss.InputError, match="holds no run"):
        result.save(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(ss.InputError, match="holds no result"):
        ss.Result.load(tmp_path)


def test_saving_again_replaces_the_result(result, tmp_path):
    once = result.save(tmp_path / "result")
    again = ss.Result.load(once).save(once)
    assert ss.Result.load(again).headline == result.headline


def test_saved_into_the_folder_of_a_run_it_leaves_the_runs_other_files_but_stale(result, tmp_path):
    folder = RunFolder(tmp_path / "run", dependants)
    folder.mark()
    for step, name in {
        "select": "features.json",
        "sweep": "claims.csv",
        "report": "r.html",
    }.items():
        with folder.writing(step):
            write_text(folder.path(name), "of the run")
    result.save(folder.root)
    assert folder.stale() == ["features.json", "r.html"]
    assert ss.Result.load(folder.root).headline == result.headline
    write_text(folder.path("controls.csv"), "annotated")
    with pytest.raises(
        ss.InputError, match=r"controls\.csv is missing or was changed after the run"
    ):
        ss.Result.load(folder.root)
    result.save(folder.root)
    assert folder.path("controls.edited-1.csv").read_text() == "annotated"
    folder.path(".steps/sweep.json").unlink()
    before = sorted(folder.root.rglob("*"))
    with pytest.raises(ss.InputError, match=r"completions\.jsonl, interference\.csv, .* move them"):
        result.save(folder.root)
    assert sorted(folder.root.rglob("*")) == before


@pytest.fixture(scope="module")
def of_vectors(tiny_model) -> ss.Result:
    """Without an SAE, with a metric of the user's own."""
    return ss.sweep(
        tiny_model,
        None,
        ss.load_prompts("tiny-code-math-mixed", 4),
        directions={"mine": torch.ones(tiny_model.cfg.d_model)},
        hook_name=HOOK,
        alphas=(2.0,),
        metrics=[{"entropy": lambda logits: logits.float().logsumexp(-1)}, "kl"],
        n_controls=24,
    )


def contents(folder: Path) -> dict[str, bytes]:
    found = [p for p in folder.rglob("*") if p.is_file() and p.name != "lock"]
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in found}


def refused(*command: str) -> str:
    done = CliRunner().invoke(app, [*command])
    assert done.exit_code == 2
    return done.stderr


def test_no_command_runs_a_config_in_the_folder_of_a_saved_result(of_vectors, tmp_path):
    folder, other = of_vectors.save(tmp_path / "mine"), tmp_path / "other.yaml"
    other.write_text("{}")
    own, before = str(folder / "config.yaml"), contents(folder)
    saved = "holds a result saved from a notebook, which no config reproduces: give"
    for command in ("run", "report", "sweep"):
        assert f"{saved} another --out" in refused(command, str(other), "--out", str(folder))
        said = refused(command, own, "--out", str(tmp_path / "new"))
        assert "settings of a result saved from a notebook" in said
        refused(command, own, "--out", str(folder))
    for command in ("reproduce", "metrics", "features"):
        assert f"{saved} the folder of a run" in refused(command, str(folder))
    assert f"{saved} the folder" in refused("export", str(folder), str(tmp_path / "v.gguf"))
    assert "write its page with result.report" in refused("images", str(folder))
    assert "settings of a result saved from a notebook" in refused("doctor", own)
    assert contents(folder) == before and not (tmp_path / "new").exists()


def test_a_damaged_saved_result_is_to_be_saved_again(of_vectors, tmp_path, capsys):
    folder = of_vectors.save(tmp_path / "mine")
    (folder / "claims.csv").write_text("damaged")
    said = refused("verify", str(folder))
    assert "1 of" in said and "is missing or was changed: claims.csv. Save the result" in said
    with pytest.raises(ss.InputError, match="save the result again from the notebook, or copy it"):
        ss.Result.load(folder)
    of_vectors.save(folder)
    assert "running the step" not in capsys.readouterr().err
    assert ss.Result.load(folder).config == of_vectors.config


def test_a_report_without_an_sae_speaks_of_directions(of_vectors, tmp_path):
    page = of_vectors.report(tmp_path / "page.html").read_text()
    text = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    for absent in ("The SAE", "not recorded", "were given", "W_dec[f])", "entropy (nats)"):
        assert absent not in text
    assert "Each direction is added" in text and "evidence about the direction" in text
    assert "saved from Python, so no config reproduces it" in text
    assert "What is needed to reproduce" not in text
    title = of_vectors.plot_interference().layout.yaxis.title.text
    assert title == "Δ Entropy" or title == "Δ entropy"
    assert of_vectors.plot_interference("kl").layout.yaxis.title.text == "Δ KL (nats)"
    assert "\n1 direction and 24 controls, 4 prompts" in repr(of_vectors)


def test_a_path_without_a_result_is_named(of_vectors, tmp_path):
    with pytest.raises(ss.InputError, match="there is no folder"):
        ss.Result.load(tmp_path / "nowhere")
    (tmp_path / "c.html").write_text("")
    for act in (ss.Result.load, of_vectors.save):
        with pytest.raises(ss.InputError, match="is a file: give a folder"):
            act(tmp_path / "c.html")
