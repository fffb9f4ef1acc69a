"""The command line: exit statuses, one sentence on bad input, nothing half-written."""

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml
from typer.testing import CliRunner

from saelens_steer import cli
from saelens_steer.files import write_with
from saelens_steer.version import __version__

ROOT = Path(__file__).parents[2]
ENV = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def saelens_steer(*args: str) -> subprocess.CompletedProcess:
    """The command as a user runs it, in a process of its own."""
    command = [sys.executable, "-m", "saelens_steer.cli", *args]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=ENV, timeout=300)


@pytest.fixture
def refused(monkeypatch, capsys):
    """Run a command in this process; the sentences on stderr with which it exits (status 2)."""

    def run(*args: str) -> str:
        monkeypatch.setattr(sys, "argv", ["saelens-steer", *args])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        printed = capsys.readouterr()
        assert stopped.value.code == 2
        assert printed.out == ""
        first, *more = printed.err.strip().splitlines()
        assert first.startswith("saelens-steer: ") and all(line[:2] == "- " for line in more)
        return printed.err

    return run


def config(tmp_path: Path, **data) -> str:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(data))
    return str(path)


def child_cpu(*command: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT, env=ENV)
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before


def test_help_names_the_commands_and_takes_less_time_than_importing_torch():
    done = saelens_steer("--help")  # compiles bytecode
    for command in ("demo", "run", "cache", "train", "select", "sweep", "report", "doctor"):
        assert command in done.stdout
    help_cpu = child_cpu(sys.executable, "-m", "saelens_steer.cli", "--help")
    assert help_cpu < child_cpu(sys.executable, "-c", "import torch")


def test_help_describes_each_command_in_whole_sentences_at_80_columns():
    from saelens_steer.cli import app

    shown = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "80"}).stdout
    assert max(map(len, shown.splitlines())) <= 80
    commands = typer.main.get_command(app).commands
    for name, command in commands.items():
        whole = command.help.split("\n\n")[0]
        assert " ".join(f"{name} {whole}".split()) in " ".join(shown.split())


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
def test_bad_input_is_one_sentence_and_status_2_and_leaves_nothing(case, tmp_path, refused):
    data, hints = BAD[case]
    sentence = refused("run", config(tmp_path, **data), "--out", str(tmp_path / "run"))
    for hint in hints:
        assert hint in sentence
    assert not (tmp_path / "run").exists()


def test_bad_input_exits_with_status_2_and_no_traceback_in_a_real_process(tmp_path):
    done = saelens_steer("run", config(tmp_path, swep={}))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("saelens-steer: ")
    assert "Traceback" not in done.stderr


def test_a_hub_model_without_network_is_refused(tmp_path, refused, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    path = str(ROOT / "configs/qwen3_4b_instruct_code_vs_math.yaml")
    sentence = refused("run", path, "--out", str(tmp_path / "run"))
    assert "Qwen/Qwen3-4B-Instruct-2507" in sentence
    assert not (tmp_path / "run").exists()


def test_malformed_prompts_are_refused_with_the_line(tmp_path, refused):
    prompts = tmp_path / "mine.jsonl"
    prompts.write_text('{"text": "fine"}\n{"text": \n')
    path = config(tmp_path, prompts={"source": str(prompts)})
    assert "2" in refused("run", path, "--out", str(tmp_path / "run"))
    prompts.write_text("")
    assert "no prompts" in refused("run", path, "--out", str(tmp_path / "run"))


def test_an_sae_of_another_width_or_hook_is_refused(tmp_path, refused):
    from sae_lens.saes.standard_sae import StandardSAE, StandardSAEConfig

    wrong = StandardSAE(StandardSAEConfig(d_in=64, d_sae=8))
    wrong.save_model(str(tmp_path / "narrow"))
    path = config(tmp_path, sae={"load": {"source": str(tmp_path / "narrow")}})
    assert "64 dimensions" in refused("run", path, "--out", str(tmp_path / "run"))


def test_a_config_that_is_no_yaml_or_not_there_is_refused(tmp_path, refused):
    (tmp_path / "bad.yaml").write_text("a: [1,")
    assert "YAML" in refused("run", str(tmp_path / "bad.yaml"))
    assert "missing.yaml" in refused("run", str(tmp_path / "missing.yaml"))
    assert "dotted.key=value" in refused("demo", "--set", "alphas", "--out", str(tmp_path / "run"))


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path, refused, monkeypatch):
    def no_room(path: Path) -> None:
        path.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    full = lambda *args, **named: write_with(tmp_path / "x.json", no_room)  # noqa: E731
    monkeypatch.setattr("saelens_steer.pipeline.run.run", full)
    assert "disk is full" in refused("demo", "--out", str(tmp_path / "run"))
    assert not list(tmp_path.iterdir())


def test_a_tilde_after_an_equals_sign_is_expanded(tmp_path, monkeypatch, capsys):
    given = []
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(
        "saelens_steer.pipeline.run.run", lambda config, out, **_: given.append(out)
    )
    for out in ("~/x", "~", "x~", "~other/x"):
        monkeypatch.setattr(sys, "argv", ["saelens-steer", "demo", f"--out={out}"])
        with pytest.raises(SystemExit):
            cli.main()
    assert given == [tmp_path / "x", tmp_path, Path("x~"), Path("~other/x")]


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [
        (OSError(errno.EIO, "Input/output error", "/data/x"), 2, "/data/x: Input/output error"),
        (OSError(errno.EMFILE, "Too many open files"), 2, "Too many open files"),
        (ValueError("two\nlines"), 1, "ValueError: two lines. Please report it with "),
        (RecursionError("deep"), 1, "RecursionError: deep. Please report it with "),
    ],
)
def test_an_unexpected_error_leaves_its_traceback_in_the_folder(
    tmp_path, monkeypatch, capsys, error, status, says
):
    def fail(*_):
        raise error

    monkeypatch.setattr("saelens_steer.pipeline.run.carry_out", fail)
    monkeypatch.setattr(sys, "argv", ["saelens-steer", "demo", "--out", str(tmp_path / "run")])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == status
    said, file = capsys.readouterr().err.strip().splitlines()[-1], tmp_path / "run/traceback.txt"
    assert said.startswith(f"saelens-steer: {says}")
    assert file.exists() == (status == 1)
    if status == 1:
        assert (
            str(file) in said and "Traceback" in file.read_text() and "in fail" in file.read_text()
        )


def test_characters_that_the_locale_cannot_encode_are_named_with_the_variable_to_set(tmp_path):
    home = tmp_path / "größe"
    home.mkdir()
    (home / "config.yaml").write_text("sweep: {alphas: 3}")
    plain = {**ENV, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    for env in ({**ENV, "LC_ALL": "C"}, plain, {**ENV, "PYTHONIOENCODING": "ascii"}):
        command = [sys.executable, "-m", "saelens_steer.cli", "run", str(home / "config.yaml")]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env)
        assert done.returncode == 2 and "Traceback" not in done.stderr
        assert "alphas" in done.stderr or "set PYTHONUTF8=1" in done.stderr


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path, refused):
    (tmp_path / "sae").mkdir()
    (tmp_path / "sae/notes.txt").write_text("mine")
    assert "holds no run" in refused("demo", "--out", str(tmp_path))
    assert [p.name for p in tmp_path.rglob("*")] == ["sae", "notes.txt"]


def test_ctrl_c_prints_how_to_resume(monkeypatch, capsys):
    def stopped(*args, **named):
        raise KeyboardInterrupt

    monkeypatch.setattr("saelens_steer.pipeline.run.run", stopped)
    monkeypatch.setattr(sys, "argv", ["saelens-steer", "demo"])
    with pytest.raises(SystemExit) as status:
        cli.main()
    assert status.value.code == 1
    assert "Rerun the same command to resume" in capsys.readouterr().err


def test_the_version_is_the_packages():
    assert saelens_steer("--version").stdout.strip() == __version__
