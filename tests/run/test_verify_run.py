"""Every file of a finished run is unchanged, or is named, refused and computed again."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import saelens_steer as ss
from saelens_steer.cli import app
from saelens_steer.errors import InputError
from saelens_steer.pipeline import run
from saelens_steer.pipeline.reproduce import reproduce, settings_that_differ
from saelens_steer.pipeline.verify import verify
from saelens_steer.run_folder import RunFolder

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def config(small_config) -> dict[str, Any]:
    sweep = {**small_config["sweep"], "cache_logits": True}
    return {**small_config, "sweep": sweep, "label": {"max_new_tokens": 2, "n_prompts": 2}}


@pytest.fixture
def copy(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "elsewhere/run"))


def files(folder: Path) -> list[str]:
    """Every file of a run, but the lock."""
    found = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]
    return sorted(name for name in found if name != ".steps/lock")


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 4
    path.write_bytes(data)


def test_a_copied_run_verifies_and_one_changed_byte_of_any_file_is_named(copy):
    assert verify(copy) == files(copy)
    done = CliRunner().invoke(app, ["verify", str(copy)])
    assert done.exit_code == 0 and done.stdout.splitlines()[-1] == str(copy)
    assert len(files(copy)) > 40
    for name in files(copy):
        whole = (copy / name).read_bytes()
        for place in {0, len(whole) // 2, len(whole) - 1}:
            flip(copy / name, place)
            with pytest.raises(InputError, match=rf" was changed: {re.escape(name)}\."):
                verify(copy)
            (copy / name).write_bytes(whole)
    assert verify(copy) == files(copy)


def test_missing_files_are_all_named_and_the_command_ends_with_two(copy):
    for name in ("claims.csv", "sweep/rows-00000.parquet"):
        (copy / name).unlink()
    done = CliRunner().invoke(app, ["verify", str(copy)])
    assert done.exit_code == 2 and done.stdout == ""
    assert "claims.csv, sweep/rows-00000.parquet. Compute them again with" in done.stderr
    (copy / "notes.txt").write_text("mine")  # of no step
    carried_out_again = run.run(copy / "config.yaml", copy)
    assert carried_out_again == copy / "report.html" and "notes.txt" not in verify(copy)


@pytest.mark.parametrize(
    "name",
    [
        "claims.csv", "completions.jsonl", "features.json", "sae/sae_weights.safetensors",
        "activations/index.parquet", "sae/quality.json", "report.html", "labels.json",
    ],
)  # fmt: skip
def test_damaged_files_are_refused_by_readers_and_recomputed_identically(
    config, whole, copy, name, capsys, carried_out
):
    flip(copy / name, (copy / name).stat().st_size // 2)
    if name.endswith(("csv", "jsonl", "features.json")):
        with pytest.raises(InputError, match=f"{name} is missing or was changed after the run"):
            ss.Result.load(copy)
    carried_out(config, copy)
    assert re.search(
        rf"{name}( and \d+ more are| is) missing or changed: running the step \w+",
        capsys.readouterr().err,
    )
    changed = [f for f in files(whole) if (copy / f).read_bytes() != (whole / f).read_bytes()]
    assert [*filter(lambda f: not f.startswith(".steps/"), changed)] == []
    verify(copy)


def test_a_damaged_shard_is_measured_again_and_others_are_not(
    config, whole, copy, capsys, carried_out
):
    shards = sorted((copy / ".store/rows").glob("*.parquet"))
    for shard in shards:
        flip(shard, shard.stat().st_size // 2)
    (copy / "claims.csv").unlink()
    carried_out(config, copy)
    assert shards
    said = capsys.readouterr().err
    assert all(f"{shard.name} is damaged: measuring it again" in said for shard in shards)
    assert (copy / "claims.csv").read_bytes() == (whole / "claims.csv").read_bytes()
    assert verify(copy) == files(copy)


def test_the_config_never_coexists_with_tables_of_another_config(config, copy, carried_out):
    other = {**config, "sweep": {**config["sweep"], "alphas": [-1, 1]}}
    carried_out(other, copy, until="select")
    folder = RunFolder(copy)
    assert folder.has("features.json") and not folder.has("claims.csv")
    assert {"claims.csv", "report.html", "sweep/rows-00000.parquet"} <= {*folder.stale()}
    with pytest.raises(InputError, match="no up-to-date"):
        ss.Result.load(copy)
    verify(copy)


def test_a_run_is_reproduced_to_the_byte_and_the_first_difference_is_named(
    copy, tmp_path, monkeypatch
):
    again = tmp_path / "again/under another name"
    command = ["reproduce", str(copy), "--out", str(again)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0 and "all files are identical" in done.stdout
    assert "settings that differ (versions, threads, machine): none" in done.stdout
    assert settings_that_differ(copy, again) == []
    folder = RunFolder(copy)  # as if another machine had written it
    for name in ("completions.jsonl", "claims.csv"):
        record = folder.records["sweep"]
        folder.records["sweep"] = replace(record, files=record.files | {name: "0"})
    about = copy / "provenance.json"
    about.write_text(about.read_text().replace('"threads": 1', '"threads": 7'))
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 2 and "Compute them again with" in done.stderr
    monkeypatch.setattr("saelens_steer.pipeline.reproduce.verify", lambda _: [])
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 1
    assert done.stdout.splitlines() == [
        "claims.csv is the first of 2 files that differ",
        "settings that differ (versions, threads, machine): threads: 7 → 1",
        str(again),
    ]


def test_only_a_finished_run_is_reproduced_and_not_into_itself(copy, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="has no finished step"):
        reproduce(tmp_path / "empty", tmp_path / "again")
    with pytest.raises(InputError, match="is the run itself"):
        reproduce(copy, copy.parent / "." / copy.name)
    flip(copy / "config.yaml", 5)
    with pytest.raises(InputError, match=r" was changed: config\.yaml\. Compute it again"):
        reproduce(copy, tmp_path / "again")


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    for place in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match="is not a run folder"):
            verify(place)
