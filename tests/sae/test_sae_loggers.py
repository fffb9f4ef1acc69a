"""Laws of the loggers: they receive the lines of metrics.jsonl, and only if switched on."""

import json
from pathlib import Path

import pytest

from saelens_steer.errors import InputError
from saelens_steer.sae import sae_fingerprint, train_sae
from saelens_steer.sae.training import log as loggers

HOOK = "blocks.2.hook_resid_pre"


def json_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_tensorboard_holds_the_lines_of_metrics_jsonl(random_model, small, tmp_path):
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="no tensorboard"
    )
    train_sae(random_model, small(), HOOK, tmp_path / "sae", tensorboard=True)
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard/sae")).Reload()
    lines = json_lines(tmp_path / "sae/metrics.jsonl")
    found = {event.step: event.value for event in events.Scalars("train/l0")}
    assert found == pytest.approx({line["tokens"]: line["l0"] for line in lines})
    held_out = [event.value for event in events.Scalars("held_out/explained_variance")]
    assert held_out == pytest.approx([line["held_out_explained_variance"] for line in lines])


def test_a_new_training_renames_the_curves_of_an_earlier_one(random_model, small, tmp_path):
    pytest.importorskip("tensorboard", reason="no tensorboard")
    for seed in (0, 1):
        train_sae(random_model, small(seed=seed), HOOK, tmp_path / "sae", tensorboard=True)
    for name in ("sae", "sae.earlier-1"):
        assert len(list((tmp_path / "tensorboard" / name).iterdir())) == 1


def test_weights_and_biases_is_given_the_lines_and_the_config(
    random_model, small, tmp_path, monkeypatch
):
    asked, given, ended = {}, [], []

    class Run:
        def log(self, line, step):
            given.append((step, line))

        def finish(self):
            ended.append(True)

    monkeypatch.setattr("wandb.init", lambda **about: asked.update(about) or Run())
    train_sae(random_model, small(), HOOK, tmp_path / "sae", wandb="steering")
    assert (asked["project"], asked["name"], asked["dir"]) == ("steering", "sae", str(tmp_path))
    assert asked["config"]["d_sae"] == 32
    lines = json_lines(tmp_path / "sae/metrics.jsonl")
    assert [step for step, _ in given] == [line["step"] for line in lines]
    assert given[-1][1]["train/loss"] == lines[-1]["loss"]
    assert ended == [True]


def test_weights_and_biases_is_closed_when_the_training_fails(tmp_path, monkeypatch):
    ended = []
    run = type("Run", (), {"log": None, "finish": lambda self: ended.append(True)})
    monkeypatch.setattr("wandb.init", lambda **about: run())
    with (
        pytest.raises(KeyboardInterrupt),
        loggers.open_loggers(tmp_path / "sae", {}, wandb="steering"),
    ):
        raise KeyboardInterrupt
    assert ended == [True]


def test_weights_and_biases_runs_offline_for_real(random_model, small, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    train_sae(random_model, small(), HOOK, tmp_path / "sae", wandb="steering")
    assert list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))


def test_logging_changes_nothing_in_the_sae(random_model, small, tmp_path):
    pytest.importorskip("tensorboard", reason="no tensorboard")
    train_sae(random_model, small(), HOOK, tmp_path / "plain")
    train_sae(random_model, small(), HOOK, tmp_path / "logged", tensorboard=True)
    assert sae_fingerprint(tmp_path / "plain") == sae_fingerprint(tmp_path / "logged")
    assert not (tmp_path / "tensorboard/plain").exists()


def test_missing_tensorboard_is_reported_before_any_training(
    random_model, small, tmp_path, monkeypatch
):
    monkeypatch.setattr("saelens_steer.config.environment.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'saelens-steer\[tensorboard\]'"):
        train_sae(random_model, small(), HOOK, tmp_path / "sae", tensorboard=True)
    assert list(tmp_path.iterdir()) == []


def test_curves_are_neither_removed_nor_written_outside_the_folder(tmp_path):
    (tmp_path / "away/sae").mkdir(parents=True)
    (tmp_path / "away/sae/events").write_text("another's")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/tensorboard").symlink_to(tmp_path / "away")
    with (
        pytest.raises(InputError, match="is not a path inside"),
        loggers.open_loggers(tmp_path / "run/sae", {}, tensorboard=True),
    ):
        pytest.fail("logged")
    assert [p.name for p in tmp_path.rglob("*")].count("events") == 1
    assert (tmp_path / "away/sae/events").read_text() == "another's"
