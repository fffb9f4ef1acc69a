"""The command line: exit statuses, one sentence on bad input, nothing half-written."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from saelens_steer.files import write_with

ENV = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def saelens_steer(*args: str, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "saelens_steer.cli", *args],
        capture_output=True,
        text=True,
        cwd=cwd or Path(__file__).parents[2],
        env={**ENV, **env},
        timeout=300,
    )


def refused(*args: str, **options) -> str:
    """The one sentence on stderr of a command that must exit with status 2."""
    done = saelens_steer(*args, **options)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    return done.stderr


def config(tmp_path: Path, **data) -> str:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(data))
    return str(path)


def test_help_comes_within_a_second_and_names_the_commands():
    saelens_steer("--help")  # compiles bytecode
    start = time.monotonic()
    done = saelens_steer("--help")
    assert time.monotonic() - start < 1.0
    for command in ("demo", "run", "cache", "train", "select", "sweep", "report", "doctor"):
        assert command in done.stdout


BAD = {
    "an unknown key": ({"swep": {}}, ["swep", "sweep"]),
    "a key of a section": ({"sweep": {"alpha": [1]}}, ["sweep.alpha", "alphas"]),
    "an unknown model": ({"model": {"name": "tiny-qwen"}}, ["tiny-qwen"]),
    "an unknown hook": ({"hook_name": "blocks.4.hook_resid_pr"}, ["hook_resid_pre"]),
    "a layer out of range": ({"hook_name": "blocks.40.hook_resid_pre"}, ["0 to 7"]),
    "a feature out of range": ({"sweep": {"features": [1024]}}, ["1024", "0 to 1023"]),
    "unknown prompts": ({"prompts": {"source": "tiny-code-math-mix"}}, ["tiny-code-math-mixed"]),
    "a missing file": ({"prompts": {"source": "nowhere.jsonl"}}, ["nowhere.jsonl"]),
    "an unknown domain": ({"select": {"positive": "music"}}, ["music", "code"]),
    "an unknown metric": ({"metrics": ["latex_firs", "kl"]}, ["latex_first"]),
    "an unknown architecture": ({"sae": {"train": {"architecture": "topkk"}}}, ["topk"]),
    "an unknown SAE": ({"sae": {"load": {"source": "no-such-release"}}}, ["no-such-release"]),
    "only texts measured": ({"metrics": ["latex_first"]}, ["logit metric"]),
    "overlapping prompts": ({"prompts": {"source": "tiny-domains"}}, ["both steered and used"]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence_and_status_2_and_leaves_nothing(case, tmp_path):
    data, hints = BAD[case]
    sentence = refused("run", config(tmp_path, **data), "--out", str(tmp_path / "run"))
    for hint in hints:
        assert hint in sentence
    assert not (tmp_path / "run").exists()


def test_a_hub_model_without_network_is_refused(tmp_path):
    path = str(Path(__file__).parents[2] / "configs/qwen3_4b_instruct_code_vs_math.yaml")
    sentence = refused("run", path, "--out", str(tmp_path / "run"), HF_HUB_CACHE=str(tmp_path))
    assert "Qwen/Qwen3-4B-Instruct-2507" in sentence
    assert not (tmp_path / "run").exists()


def test_malformed_prompts_are_refused_with_the_line(tmp_path):
    prompts = tmp_path / "mine.jsonl"
    prompts.write_text('{"text": "fine"}\n{"text": \n')
    path = config(tmp_path, prompts={"source": str(prompts)})
    assert "2" in refused("run", path, "--out", str(tmp_path / "run"))
    prompts.write_text("")
    assert "empty" in refused("run", path, "--out", str(tmp_path / "run"))


def test_an_sae_of_another_width_or_hook_is_refused(tmp_path):
    from sae_lens.saes.standard_sae import StandardSAE, StandardSAEConfig

    wrong = StandardSAE(StandardSAEConfig(d_in=64, d_sae=8))
    wrong.save_model(str(tmp_path / "narrow"))
    path = config(tmp_path, sae={"load": {"source": str(tmp_path / "narrow")}})
    assert "64 dimensions" in refused("run", path, "--out", str(tmp_path / "run"))


def test_a_config_that_is_no_yaml_or_not_there_is_refused(tmp_path):
    (tmp_path / "bad.yaml").write_text("a: [1,")
    assert "YAML" in refused("run", str(tmp_path / "bad.yaml"))
    assert "missing.yaml" in refused("run", str(tmp_path / "missing.yaml"))
    assert "dotted.key=value" in refused("demo", "--set", "alphas", "--out", str(tmp_path / "run"))


def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch, capsys):
    import errno

    from saelens_steer import cli

    def no_room(path: Path) -> None:
        path.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    def full(*args):
        write_with(tmp_path / "x.json", no_room)

    monkeypatch.setattr("saelens_steer.runner.run", full)
    monkeypatch.setattr(sys, "argv", ["saelens-steer", "demo", "--out", str(tmp_path / "run")])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    assert "disk is full" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_doctor_says_what_would_be_done(tmp_path):
    done = saelens_steer("doctor", "configs/tiny/code_vs_math.yaml")
    assert done.returncode == 0, done.stderr
    assert "blocks.4.hook_resid_pre" in done.stdout
    assert done.stdout.strip().endswith("ok")
    assert "math_margin" in done.stdout
