"""The SAE of a run: its figures and verdict, grids, and the quality of loaded SAEs."""

import json
import shutil

import pandas as pd
import pytest
from sae_lens import SAE
from stopping import stop_at

from saelens_steer.config import parse_config
from saelens_steer.errors import InputError
from saelens_steer.pipeline import context
from saelens_steer.pipeline.checks import checked_context
from saelens_steer.pipeline.run import run
from saelens_steer.run_folder import RunFolder
from saelens_steer.step_records import StepRecord

QUICK = {"d_sae": 64, "options": {"k": 4}, "training_tokens": 8192, "context_size": 64}


def spec(**sae):
    return parse_config({"sae": {"train": QUICK, **sae}}, [])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run up to the train step."""
    folder = tmp_path_factory.mktemp("run") / "one"
    run(spec(), folder, until="train")
    return folder


def quality(folder):
    return json.loads((folder / "quality.json").read_text())


@pytest.mark.slow
def test_a_grid_writes_its_saes_a_table_and_a_figure(tmp_path):
    grid = [{"vary": {"k": [2, 4]}}, {"architecture": "topk", "vary": {"k": [4]}}]
    table = run(spec(grid=grid), tmp_path / "run", until="grid")
    assert table == tmp_path / "run/grid/grid.csv"
    rows = pd.read_csv(table)
    assert list(rows["name"]) == ["batchtopk-k2", "batchtopk-k4", "topk-k4"]
    for _, row in rows.iterrows():
        sae = SAE.load_from_disk(str(table.parent / row["name"]))
        assert sae.cfg.d_sae == 64
        found = quality(table.parent / row["name"])
        assert row["l0"] == pytest.approx(found["l0"]) and row["verdict"] == found["verdict"]
    assert rows["l0"][2] == 4
    assert "plotly" in (table.parent / "frontier.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_grid_resumes_and_saes_that_are_no_longer_asked_for_are_stale(tmp_path):
    both = spec(grid=[{"vary": {"k": [2, 4]}}])
    run(both, tmp_path / "run", until="grid")
    weights = tmp_path / "run/grid/batchtopk-k2/sae_weights.safetensors"
    before = weights.stat().st_mtime_ns
    table = run(spec(grid=[{"vary": {"k": [2, 8]}}]), tmp_path / "run", until="grid")
    assert weights.stat().st_mtime_ns == before
    assert list(pd.read_csv(table)["name"]) == ["batchtopk-k2", "batchtopk-k8"]
    stale = RunFolder(tmp_path / "run").stale()
    assert {name.rpartition("/")[0] for name in stale} == {"grid/batchtopk-k4"}
    assert (tmp_path / "run/grid/batchtopk-k4/sae_weights.safetensors").exists()


@pytest.mark.slow
def test_a_grid_leaves_alone_what_it_did_not_make(tmp_path):
    run(spec(grid=[{"vary": {"k": [2]}}]), tmp_path / "run", until="grid")
    mine = tmp_path / "run/grid/wandb/offline-run-1/notes.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("keep me")
    run(spec(grid=[{"vary": {"k": [4]}}]), tmp_path / "run", until="grid")
    assert mine.read_text() == "keep me"
    assert (tmp_path / "run/grid/batchtopk-k2").exists()


@pytest.mark.nightly
def test_a_grid_removes_nothing_by_the_name_of_a_step_alone(tmp_path):
    asked = spec(grid=[{"vary": {"k": [2]}}])
    run(asked, tmp_path / "run", until="grid")
    for mine in ("notes.txt", "run/grid/tensorboard/mine", "run/grid/.mine", "run/grid/x/mine"):
        (tmp_path / mine).parent.mkdir(exist_ok=True)
        (tmp_path / mine).write_text("mine")
    before = {p for p in tmp_path.rglob("*") if p.parent.name != ".steps"}
    for name in ("", ".", "..", ".mine", "grid.csv", "tensorboard", "batchtopk-k2-checkpoints"):
        for state in (StepRecord(), StepRecord("0"), StepRecord(stale={"grid/x/mine": "0"})):
            RunFolder(tmp_path / "run").records[f"grid-{name}"] = state
            (tmp_path / "run/grid/grid.csv").unlink()  # or there is nothing to do
            run(asked, tmp_path / "run", until="grid")
            assert {p for p in tmp_path.rglob("*") if p.parent.name != ".steps"} == before


@pytest.mark.slow
def test_a_missing_sae_of_a_finished_grid_is_trained_again(tmp_path):
    asked = spec(grid=[{"vary": {"k": [2]}}])
    run(asked, tmp_path / "run", until="grid")
    made = tmp_path / "run/grid/batchtopk-k2"
    weights = (made / "sae_weights.safetensors").read_bytes()
    shutil.rmtree(made)
    run(asked, tmp_path / "run", until="grid")
    assert (made / "sae_weights.safetensors").read_bytes() == weights


@pytest.mark.parametrize("output", ["grid/..", "grid/../..", "..", "grid/../sae/..", "grid/away/x"])
def test_a_grid_with_a_recorded_sae_outside_its_folder_is_refused(tmp_path, output):
    asked = spec(grid=[{"vary": {"k": [2]}}])
    RunFolder(tmp_path / "run").mark()
    for mine in ("x", "run/notes.txt", "run/grid/mine"):
        (tmp_path / mine).parent.mkdir(exist_ok=True)
        (tmp_path / mine).write_text("mine")
    (tmp_path / "run/grid/away").symlink_to(tmp_path)
    RunFolder(tmp_path / "run").records["grid-old"] = StepRecord("0", stale={output: "0"})
    before = set(tmp_path.rglob("*"))
    with pytest.raises(InputError, match="is not a path inside"):
        run(asked, tmp_path / "run", until="grid")
    assert set(tmp_path.rglob("*")) == before


def test_a_grid_folder_that_links_elsewhere_is_refused(tmp_path):
    RunFolder(tmp_path / "run").mark()
    (tmp_path / "away/batchtopk-k2").mkdir(parents=True)
    (tmp_path / "run/grid").symlink_to(tmp_path / "away")
    with pytest.raises(InputError, match="is not a path inside"):
        run(spec(grid=[{"vary": {"k": [2]}}]), tmp_path / "run", until="grid")
    assert [p.name for p in (tmp_path / "away").rglob("*")] == ["batchtopk-k2"]


@pytest.mark.slow
def test_the_table_of_a_grid_with_other_settings_is_stale(tmp_path):
    from saelens_steer.pipeline.checks import checked_context

    grid = spec(grid=[{"vary": {"k": [2]}}])
    table = run(grid, tmp_path / "run", until="grid")
    checked_context(grid, tmp_path / "run").mark()
    assert table == tmp_path / "run/grid/grid.csv" and table.exists()
    other = grid.model_copy(update={"hook_name": "blocks.2.hook_resid_pre"})
    checked_context(other, tmp_path / "run").mark()
    assert RunFolder(tmp_path / "run").stale() == ["grid/frontier.html", "grid/grid.csv"]
    assert table.exists() and (tmp_path / "run/grid/batchtopk-k2/cfg.json").exists()


@pytest.mark.slow
def test_a_grid_keeps_the_hash_of_the_runs_own_sae_in_the_provenance(tmp_path):
    own = spec(grid=[{"vary": {"k": [2]}}])
    run(own, tmp_path / "run", until="train")
    before = json.loads((tmp_path / "run/provenance.json").read_text())["sae"]["hash"]
    run(own, tmp_path / "run", until="grid")
    assert json.loads((tmp_path / "run/provenance.json").read_text())["sae"]["hash"] == before
    assert before


@pytest.mark.slow
def test_an_interrupted_grid_resumes_the_sae_in_training(tmp_path, monkeypatch):
    asked = parse_config(
        {
            "sae": {
                "train": QUICK | {"resume": True, "batch_tokens": 256},
                "grid": [{"vary": {"k": [2, 4]}}],
            }
        },
        [],
    )
    with monkeypatch.context() as patch:
        stop_at(patch, 25)
        with pytest.raises(KeyboardInterrupt):
            run(asked, tmp_path / "run", until="grid")
    run(asked, tmp_path / "run", until="grid")
    assert quality(tmp_path / "run/grid/batchtopk-k2")["resumed_at_tokens"][0] > 0
    assert "resumed_at_tokens" not in quality(tmp_path / "run/grid/batchtopk-k4")
    assert not list((tmp_path / "run/grid").glob("*-checkpoints"))


def test_baseline_grid_and_loggers_do_not_retrain_the_sae(trained):
    weights = trained / "sae/sae_weights.safetensors"
    before = weights.stat().st_mtime_ns
    run(
        spec(frozen_decoder_baseline=True, grid=[{"vary": {"k": [2]}}], log={"wandb": "x"}),
        trained,
        until="train",
    )
    assert weights.stat().st_mtime_ns == before
    run(spec(), trained, until="train")


@pytest.mark.nightly
def test_a_loaded_sae_without_figures_is_measured_on_the_selection_prompts(
    trained, tmp_path, tiny_model
):
    from saelens_steer.data import load_prompts, render
    from saelens_steer.sae import load_sae, sae_quality

    sae = load_sae(trained / "sae")
    bare = tmp_path / "bare"
    sae.save_model(str(bare))
    run(parse_config({"sae": {"load": {"source": str(bare)}}}, []), tmp_path / "run", until="train")
    found = quality(tmp_path / "run/sae")
    prompts = load_prompts("tiny-domains")
    texts = [render(tiny_model.tokenizer, p) + (p.answer or "") for p in prompts]
    by_hand = sae_quality(tiny_model, sae, "blocks.4.hook_resid_pre", texts, 128)
    assert found["loss_recovered"] == pytest.approx(by_hand["loss_recovered"], rel=1e-5)
    assert found["n_tokens"] == by_hand["n_tokens"] and found["verdict"]


@pytest.mark.slow
def test_a_loaded_sae_is_measured_on_the_corpus_the_config_names(trained, tmp_path):
    from saelens_steer.sae import load_sae

    load_sae(trained / "sae").save_model(str(tmp_path / "bare"))
    load = {"source": str(tmp_path / "bare"), "corpus": "tiny"}
    run(parse_config({"sae": {"load": load}}, []), tmp_path / "run", until="train")
    assert quality(tmp_path / "run/sae")["n_tokens"] > 15_000


@pytest.mark.nightly
def test_another_corpus_changes_only_the_figures(trained, tmp_path):
    from saelens_steer.sae import load_sae

    load_sae(trained / "sae").save_model(str(tmp_path / "bare"))
    load = {"source": str(tmp_path / "bare")}
    folder = tmp_path / "run"
    run(parse_config({"sae": {"load": load}}, []), folder, until="select")
    kept = [folder / "features.json", folder / "sae/sae_weights.safetensors"]
    before = [path.stat().st_mtime_ns for path in kept], quality(folder / "sae")["n_tokens"]
    run(parse_config({"sae": {"load": load | {"corpus": "tiny"}}}, []), folder, until="select")
    assert [path.stat().st_mtime_ns for path in kept] == before[0]
    assert quality(folder / "sae")["n_tokens"] != before[1]


def test_the_resume_setting_does_not_retrain_the_sae(trained):
    weights = trained / "sae/sae_weights.safetensors"
    before = weights.stat().st_mtime_ns
    run(parse_config({"sae": {"train": QUICK | {"resume": True}}}, []), trained, until="train")
    assert weights.stat().st_mtime_ns == before


def test_an_sae_trained_here_keeps_its_figures_when_it_is_loaded(trained, tmp_path):
    load = {"source": str(trained / "sae")}
    run(parse_config({"sae": {"load": load}}, []), tmp_path / "run", until="train")
    assert quality(tmp_path / "run/sae") == quality(trained / "sae")


def test_the_sae_that_a_run_loads_is_loaded_once_before_its_steps(trained, tmp_path, monkeypatch):
    sources, load = [], context.load_sae
    monkeypatch.setattr(
        context, "load_sae", lambda source, *a, **g: sources.append(source) or load(source, *a, **g)
    )
    source = str(trained / "sae")
    made = checked_context(parse_config({"sae": {"load": {"source": source}}}, []), tmp_path / "x")
    assert made.special_tokens is None and made.start is None
    assert made.source_sae is made.source_sae and sources == [source]


@pytest.mark.slow
def test_a_resumed_training_is_recorded_in_the_provenance(tmp_path, monkeypatch):
    resuming = parse_config({"sae": {"train": QUICK | {"resume": True, "batch_tokens": 256}}}, [])
    with monkeypatch.context() as patch:
        stop_at(patch, 25)
        with pytest.raises(KeyboardInterrupt):
            run(resuming, tmp_path / "run", until="train")
    run(resuming, tmp_path / "run", until="train")
    about = json.loads((tmp_path / "run/provenance.json").read_text())["sae"]
    assert about["resumed_at_tokens"] == quality(tmp_path / "run/sae")["resumed_at_tokens"]
    assert about["resumed_at_tokens"][0] > 0 and about["train"]["resume"] is True


@pytest.mark.slow
def test_what_the_audit_finds_is_stored_and_recorded(trained, tmp_path, capsys):
    from saelens_steer.sae import load_sae

    spoilt = load_sae(trained / "sae")
    spoilt.W_dec.data = spoilt.W_dec.data.flip(0)
    spoilt.save_model(str(tmp_path / "spoilt"))
    source = {"source": str(tmp_path / "spoilt")}
    run(parse_config({"sae": {"load": source}}, []), tmp_path / "run", until="train")
    found = json.loads((tmp_path / "run/sae/audit.json").read_text())
    assert found["failures"] and found["figures"]["promised_l0"] == 4
    assert json.loads((tmp_path / "run/provenance.json").read_text())["sae"]["audit"] == found
    assert f"The SAE may not fit the model or the hook: {found['failures'][0]}" in " ".join(
        capsys.readouterr().err.split()
    )
