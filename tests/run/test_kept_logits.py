"""New metrics from kept logits: no forward pass, and the same values as in a new run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from saelens_steer import cli
from saelens_steer.config import parse_config
from saelens_steer.pipeline.run import run

pytestmark = pytest.mark.slow

SMALL = [
    "sae.train.training_tokens=20000",
    "sae.train.d_sae=128",
    "prompts.limit=5",
    "select.k=2",
    "sweep.n_controls=12",
    "sweep.alphas=[-4,0,4]",
    "sweep.batch_tokens=512",
    "label=null",
]
KEPT = "sweep.cache_logits=true"
KL = "metrics=[kl]"
BOTH = "metrics=[kl,{margin: {name: m, target: latex_delimiters}}]"


def rows_of(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "sweep")


def swept(folder: Path, *sets: str) -> pd.DataFrame:
    run(parse_config({}, [*SMALL, *sets]), folder, until="sweep")
    return rows_of(folder)


@pytest.fixture(scope="module", params=["all", "last"])
def kept(request, tmp_path_factory) -> tuple[Path, str]:
    """A run that measured KL and kept the logits."""
    folder, positions = tmp_path_factory.mktemp("kept") / "run", f"sweep.positions={request.param}"
    swept(folder, KEPT, KL, positions)
    return folder, positions


def no_passes(monkeypatch) -> None:
    """Make every forward pass an error from here on."""
    from transformer_lens.components import TransformerBlock

    from saelens_steer.model import Layer

    def refuse(*args, **kwargs):
        raise AssertionError("a forward pass")

    monkeypatch.setattr(TransformerBlock, "forward", refuse)
    monkeypatch.setattr(Layer, "run", refuse)


def test_a_new_metric_takes_no_forward_pass_and_is_what_a_new_run_measures(
    kept, tmp_path, monkeypatch
):
    folder, positions = kept
    copy = tmp_path / "run"
    shutil.copytree(folder, copy)
    with monkeypatch.context() as patched:
        no_passes(patched)
        found = swept(copy, KEPT, BOTH, positions)
    assert found["kl"].equals(rows_of(folder)["kl"])
    assert found.equals(swept(tmp_path / "anew", KEPT, BOTH, positions))


@pytest.mark.parametrize("made", ["sweep", "report.html"])
def test_the_command_adds_a_metric_and_renews_what_was_there(
    kept, tmp_path, monkeypatch, capsys, made
):
    copy = tmp_path / "run"
    shutil.copytree(kept[0], copy)
    if made == "report.html":
        run(parse_config({}, [*SMALL, KEPT, KL, kept[1]]), copy)
    added = ["--set", "metrics=[{margin: {name: m, target: latex_delimiters}}]"]
    monkeypatch.setattr("sys.argv", ["saelens-steer", "metrics", str(copy), *added])
    no_passes(monkeypatch)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(copy / made)
    assert {"kl_delta", "m_delta"} <= set(pd.read_csv(copy / "interference.csv"))


def test_nothing_else_of_a_finished_sweep_is_changed_by_the_command(kept, monkeypatch, capsys):
    changed = ["saelens-steer", "metrics", str(kept[0]), "--set", "sweep.alphas=[-1,1]"]
    monkeypatch.setattr("sys.argv", changed)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert "only metrics" in capsys.readouterr().err


def test_a_run_that_kept_none_is_refused_and_keeps_them_once_it_is_told_to(
    tmp_path, monkeypatch, capsys
):
    folder = tmp_path / "run"
    swept(folder, KL)
    asked = ["saelens-steer", "metrics", str(folder), "--set", BOTH]
    monkeypatch.setattr("sys.argv", asked)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert "kept no logits" in capsys.readouterr().err
    assert not (folder / ".store/logits").exists()
    swept(folder, KL, KEPT)
    assert list((folder / ".store/logits").glob("*.safetensors"))


def test_a_metric_of_texts_is_added_where_no_logits_were_kept(tmp_path, monkeypatch):
    folder, texts = tmp_path / "run", "sweep.completions.max_new_tokens=4"
    swept(folder, texts, "sweep.completions.top=1", "metrics=[kl,latex_first]")
    metrics = "metrics=[kl,latex_first,distinct_words]"
    monkeypatch.setattr("sys.argv", ["saelens-steer", "metrics", str(folder), "--set", metrics])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    assert "distinct_words_delta" in pd.read_csv(folder / "interference.csv")


def test_a_metric_of_texts_leaves_the_rows_as_they_were_measured(tmp_path, monkeypatch):
    """Rows are measured once, whatever the text metrics."""
    import saelens_steer.sweeps.logits as engine
    import saelens_steer.sweeps.texts as writing

    texts = ["sweep.completions.max_new_tokens=4", "sweep.completions.top=1"]
    folder = tmp_path / "run"
    swept(folder, *texts, "metrics=[kl,latex_first]")

    def refuse(*args):
        raise AssertionError("measured again")

    monkeypatch.setattr(engine, "measure", refuse)
    monkeypatch.setattr(writing, "write_batch", refuse)
    assert "distinct_words" in swept(folder, *texts, "metrics=[kl,latex_first,distinct_words]")
