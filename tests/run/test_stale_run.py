"""A run folder after its config changed: its files stay, and only current ones are read."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save

import saelens_steer as ss
from saelens_steer.errors import InputError
from saelens_steer.pipeline import outputs
from saelens_steer.report import export_images
from saelens_steer.run_folder import RunFolder
from saelens_steer.tables import read_csv

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def config(small_config) -> dict[str, Any]:
    return {**small_config, "metrics": ["kl", margin("old_margin"), "distinct_words"]}


def margin(name: str) -> dict[str, Any]:
    return {"margin": {"name": name, "target": "latex_delimiters"}}


@pytest.fixture
def folder(whole, tmp_path) -> Path:
    """A copy of the whole run, with files of the user's."""
    copy = Path(shutil.copytree(whole, tmp_path / "run"))
    for name in ("notes.txt", "plots/mine.png", "sae/notes.txt", "sweep/notes.md", "my/a.csv"):
        (copy / name).parent.mkdir(exist_ok=True)
        (copy / name).write_text("mine")
    return copy


def texts(folder: Path) -> dict[str, bytes]:
    files = [p for p in folder.rglob("*") if p.is_file()]
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


def with_alphas(config: dict[str, Any], *alphas: float) -> dict[str, Any]:
    return {**config["sweep"], "alphas": list(alphas)}


def doubled(weights: Path) -> bytes:
    return save({name: 2 * value for name, value in load_file(weights).items()})


def test_an_unchanged_run_changes_no_byte(config, folder, capsys, carried_out):
    before = texts(folder), [p.stat().st_mtime_ns for p in folder.rglob("*.*")]
    carried_out(config, folder)
    assert texts(folder).keys() == before[0].keys()
    assert texts(folder) == before[0]
    assert "kept from an earlier config" not in capsys.readouterr().err


def test_after_other_strengths_the_report_is_there_but_not_current(
    config, folder, capsys, carried_out
):
    before = texts(folder)
    carried_out(config, folder, "sweep", sweep=with_alphas(config, -1, 1))
    line = "kept from an earlier config, not part of this run: plots/ ("
    assert line in " ".join(capsys.readouterr().err.split())
    stale = RunFolder(folder).stale()
    assert {name for name in before if name.startswith("plots/")} - {"plots/mine.png"} < {*stale}
    assert {"report.html"} == {name for name in stale if not name.startswith("plots/")}
    after = texts(folder)
    assert before.keys() <= after.keys()
    assert all(after[name] == before[name] for name in stale)
    assert {-1.0, 0.0, 1.0} == {*read_csv(folder / "interference.csv")["alpha"]}
    assert {-1.0, 0.0, 1.0} == {*ss.Result.load(folder).rows["alpha"]}
    with pytest.raises(InputError, match=r"no current report\.html"):
        export_images(folder)
    carried_out(config, folder, sweep=with_alphas(config, -1, 1))
    assert RunFolder(folder).stale() == []
    assert "Files kept from" not in (folder / "report.html").read_text(encoding="utf-8")


def test_a_renamed_metric_and_a_dropped_step_are_listed_and_not_read(
    config, folder, tmp_path, carried_out
):
    changed: dict[str, Any] = {
        "metrics": ["kl", margin("new_margin")],
        "compare_edits": None,
        "sweep": {**config["sweep"], "completions": {"max_new_tokens": 2}},
    }
    before = texts(folder)
    carried_out(config, folder, **changed)
    stale = RunFolder(folder).stale()
    dropped = {"compare_edits.csv", "compare_edits.json", "plots/interference_old_margin.html"}
    of_texts = {name for name in before if name.startswith("generated_texts/")}
    assert dropped | of_texts <= {*stale} and of_texts
    assert all((folder / name).read_bytes() == before[name] for name in stale)
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert all(f"<code>{name}</code>" in page for name in stale)
    fresh = carried_out(config, tmp_path / "fresh" / folder.name, **changed)
    for name in ("interference.csv", "claims.csv", "completions.jsonl", "warnings.json"):
        assert (folder / name).read_bytes() == (fresh / name).read_bytes()
    plain = (fresh / "report.html").read_text(encoding="utf-8")
    listed = re.compile(r'<div class="kept">.*?</details>\s*</div>', re.DOTALL)
    assert listed.sub("", page).split() == plain.split()


def test_files_of_the_users_stay_and_edited_ones_are_kept(
    config, folder, tmp_path, capsys, carried_out
):
    (folder / "claims.csv").write_text("annotated")
    (folder / "sweep/rows-00000.parquet").write_text("edited")
    weights = folder / "sae/sae_weights.safetensors"
    weights.write_bytes(b"annotated " + weights.read_bytes())
    moved = Path(shutil.copytree(config["sae"]["load"]["source"], tmp_path / "other"))
    (moved / "sae_weights.safetensors").write_bytes(doubled(moved / "sae_weights.safetensors"))
    sae = {"load": {"source": str(moved)}}
    carried_out(config, folder, sweep=with_alphas(config, -1, 1), sae=sae)
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("was edited: your version is kept as") == 3
    assert (folder / "claims.edited-1.csv").read_text() == "annotated"
    assert (folder / "sweep.edited-1/rows-00000.parquet").read_text() == "edited"
    assert (folder / "sae.edited-1/sae_weights.safetensors").read_bytes().startswith(b"annotated")
    assert (folder / "sae/audit.json").exists() and RunFolder(folder).stale() == []
    assert len(ss.Result.load(folder).rows)
    for name in ("notes.txt", "plots/mine.png", "sae/notes.txt", "sweep/notes.md", "my/a.csv"):
        assert (folder / name).read_text() == "mine"


def test_a_file_of_the_users_in_the_way_stops_a_run_before_it_starts(config, folder, carried_out):
    (folder / "tradeoffs.csv").write_text("mine")
    before = texts(folder)
    with pytest.raises(InputError, match=r"holds tradeoffs\.csv, which this run did not write"):
        carried_out(config, folder, tradeoffs={"prompts": config["select"]["prompts"]})
    assert texts(folder) == before
    carried_out(config, folder)
    assert texts(folder) == before


def test_nothing_reads_a_sweep_stopped_while_writing_and_its_rerun_is_identical(
    config, folder, whole, monkeypatch, tmp_path, carried_out
):
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    new = with_alphas(config, -1, 1)
    with monkeypatch.context() as patched:
        patched.setattr(outputs, "write_jsonl", stop)
        with pytest.raises(KeyboardInterrupt):
            carried_out(config, folder, "sweep", sweep=new)
    old = RunFolder(folder).stale()
    assert {"claims.csv", "interference.csv", "report.html"} <= {*old}
    assert all((folder / name).read_bytes() == (whole / name).read_bytes() for name in old)
    with pytest.raises(InputError, match=r"no current interference\.csv: run the sweep"):
        ss.Result.load(folder)
    carried_out(config, folder, sweep=new)
    fresh = carried_out(config, tmp_path / "fresh" / folder.name, sweep=new)
    kept = texts(folder)
    assert {name: kept[name] for name in texts(fresh)} == texts(fresh)
