"""Laws of resuming an interrupted training: optional, through SAELens, and recorded."""

import json

import pytest
import torch
from stopping import stop_at

from saelens_steer.errors import InputError
from saelens_steer.sae import train_sae
from saelens_steer.sae.training import runner as runner_module
from saelens_steer.sae.training.resume import (
    STATE,
    checkpoint_folder,
    keep_state,
    latest,
    remove_checkpoints,
)

HOOK = "blocks.2.hook_resid_pre"
STOPPED = 30
"""Step at which training is interrupted, of 40."""
FRESH = {"training_tokens": 256 * 40, "lr": 1e-3}
SETTINGS = {
    "fresh": FRESH,
    "fresh and scaled": FRESH | {"normalize": "mean_scale"},
    "cached": FRESH | {"cached_tokens": 1024},
    "cached and scaled": FRESH | {"cached_tokens": 1024, "normalize": "mean_scale"},
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", SETTINGS)
def test_a_resumed_training_ends_near_the_uninterrupted_one(
    random_model, small, tmp_path, monkeypatch, kind
):
    spec = small(**SETTINGS[kind], resume=True)
    whole = train_sae(random_model, spec, HOOK, tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_at(patch, STOPPED)
        with pytest.raises(KeyboardInterrupt):
            train_sae(random_model, spec, HOOK, tmp_path / "sae")
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith("sae")] == ["sae-checkpoints"]
    kept = latest(tmp_path / "sae-checkpoints")
    assert kept is not None and len(list((tmp_path / "sae-checkpoints").rglob(STATE))) == 1
    again = train_sae(random_model, spec, HOOK, tmp_path / "sae")
    assert not (tmp_path / "sae-checkpoints").exists()
    quality = json.loads((tmp_path / "sae/quality.json").read_text())
    [at] = quality["resumed_at_tokens"]
    assert 256 * (STOPPED - 6) <= at <= 256 * STOPPED
    lines = [json.loads(line) for line in (tmp_path / "sae/metrics.jsonl").read_text().splitlines()]
    tokens = [line["tokens"] for line in lines]
    assert tokens == sorted(tokens) and tokens[0] == 256 and max(tokens) > at
    drift = (again.W_dec - whole.W_dec).norm(dim=-1)
    assert float(drift.mean()) < 0.2 < float((whole.W_dec - untrained(small)).norm(dim=-1).mean())


def untrained(small) -> torch.Tensor:
    """Random directions, unrelated to the trained ones."""
    return torch.nn.functional.normalize(
        torch.randn(32, 32, generator=torch.Generator().manual_seed(7)), dim=-1
    )


def test_a_resumed_cached_training_sees_exactly_the_remaining_batches(
    random_model, small, tmp_path, monkeypatch
):
    """Each activation comes once; only SAELens's own step count is off by one."""
    spec = small(**SETTINGS["cached"], resume=True)
    seen: list[torch.Tensor] = []
    cached = runner_module.Runner._cached

    def noted(self, at):
        for batch in cached(self, at):
            seen.append(batch)
            yield batch

    monkeypatch.setattr(runner_module.Runner, "_cached", noted)
    train_sae(random_model, spec, HOOK, tmp_path / "whole")
    whole, at = list(seen), 0
    seen.clear()
    with monkeypatch.context() as patch:
        stop_at(patch, STOPPED)
        with pytest.raises(KeyboardInterrupt):
            train_sae(random_model, spec, HOOK, tmp_path / "sae")
    seen.clear()
    train_sae(random_model, spec, HOOK, tmp_path / "sae")
    [at] = json.loads((tmp_path / "sae/quality.json").read_text())["resumed_at_tokens"]
    assert len(seen) == 40 - at // 256
    assert all(a.equal(b) for a, b in zip(seen, whole[at // 256 :], strict=True))


def test_optimiser_schedules_and_steps_are_restored(random_model, small, tmp_path, monkeypatch):
    spec = small(
        **FRESH,
        resume=True,
        architecture="standard",
        options={"l1_coefficient": 1.0, "l1_warm_up_steps": 100},
    )
    with monkeypatch.context() as patch:
        stop_at(patch, STOPPED)
        with pytest.raises(KeyboardInterrupt):
            train_sae(random_model, spec, HOOK, tmp_path / "sae")
    begun, watch = {}, runner_module.Runner._log_steps

    def noted(self, trainer, every):
        begun["steps"] = trainer.n_training_steps
        begun["rates"] = trainer.lr_scheduler.state_dict()["last_epoch"]
        begun["l1"] = trainer.coefficient_schedulers["l1"].value
        begun["moments"] = [s["step"].item() for s in trainer.optimizer.state.values()]
        watch(self, trainer, every)

    monkeypatch.setattr(runner_module.Runner, "_log_steps", noted)
    train_sae(random_model, spec, HOOK, tmp_path / "sae")
    [at] = json.loads((tmp_path / "sae/quality.json").read_text())["resumed_at_tokens"]
    done = at // 256
    assert begun["steps"] == done - 1, "SAELens saves before it counts the step"
    assert begun["rates"] == done and begun["l1"] == pytest.approx(done / 100, abs=0.011)
    assert begun["moments"] and set(begun["moments"]) == {done}


def test_another_corpus_never_resumes_from_a_checkpoint(
    random_model, small, corpus, tmp_path, monkeypatch
):
    own = tmp_path / "own.txt"
    own.write_text(corpus.read_text())
    spec = small(**FRESH, resume=True, corpus=str(own))
    with monkeypatch.context() as patch:
        stop_at(patch, STOPPED)
        with pytest.raises(KeyboardInterrupt):
            train_sae(random_model, spec, HOOK, tmp_path / "sae")
    own.write_text(corpus.read_text().replace("hello", "hi there"))
    train_sae(random_model, spec, HOOK, tmp_path / "sae")
    assert "resumed_at_tokens" not in json.loads((tmp_path / "sae/quality.json").read_text())


def test_a_training_without_resume_deletes_older_checkpoints(
    random_model, small, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        stop_at(patch, STOPPED)
        with pytest.raises(KeyboardInterrupt):
            train_sae(random_model, small(**FRESH, resume=True), HOOK, tmp_path / "sae")
    train_sae(random_model, small(**FRESH), HOOK, tmp_path / "sae")
    assert [p.name for p in tmp_path.iterdir()] == ["sae"]


def test_other_settings_never_resume_from_a_checkpoint(random_model, small, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_at(patch, STOPPED)
        with pytest.raises(KeyboardInterrupt):
            train_sae(random_model, small(**FRESH, resume=True), HOOK, tmp_path / "sae")
    train_sae(random_model, small(**FRESH | {"seed": 1}, resume=True), HOOK, tmp_path / "sae")
    assert "resumed_at_tokens" not in json.loads((tmp_path / "sae/quality.json").read_text())
    assert [p.name for p in tmp_path.iterdir()] == ["sae"]


def test_an_incomplete_checkpoint_is_not_resumed_from(tmp_path):
    (tmp_path / "a/512").mkdir(parents=True)
    (tmp_path / "a/256").mkdir()
    (tmp_path / "a/256" / STATE).write_text('{"tokens": 256}')
    found = latest(tmp_path)
    assert found is not None and found.name == "256"
    assert latest(tmp_path / "nothing") is None


def test_without_resume_an_interrupted_training_leaves_nothing(
    random_model, small, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        stop_at(patch, STOPPED)
        with pytest.raises(KeyboardInterrupt):
            train_sae(random_model, small(**FRESH), HOOK, tmp_path / "sae")
    assert list(tmp_path.iterdir()) == []


def test_checkpoints_change_nothing_in_a_training_that_is_not_stopped(
    random_model, small, tmp_path
):
    plain = train_sae(random_model, small(**FRESH), HOOK, tmp_path / "plain")
    kept = train_sae(random_model, small(**FRESH, resume=True), HOOK, tmp_path / "kept")
    assert all(w.equal(kept.state_dict()[name]) for name, w in plain.state_dict().items())


def test_checkpoints_outside_the_folder_are_never_deleted(tmp_path):
    (tmp_path / "away/512").mkdir(parents=True)
    (tmp_path / "run").mkdir()
    (tmp_path / "run/sae-checkpoints").symlink_to(tmp_path / "away")
    with pytest.raises(InputError, match="is not a path inside"):
        checkpoint_folder(tmp_path / "run/sae", "settings")
    own = tmp_path / "run/other-checkpoints/own"
    (own / "a/512").mkdir(parents=True)
    (own / "b").symlink_to(tmp_path / "away")
    with pytest.raises(InputError, match="is not a path inside"):
        keep_state(own / "a/512", {"tokens": 512})
    assert (tmp_path / "away/512").is_dir()


def test_only_checkpoints_are_deleted_from_their_folder(tmp_path):
    out = tmp_path / "sae"
    for mine in ("notes.txt", "best/weights", "0123456789abcdef-kept/weights"):
        (tmp_path / "sae-checkpoints" / mine).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "sae-checkpoints" / mine).write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    for settings in (1, 2):
        own = checkpoint_folder(out, settings)
        (own / "step").mkdir(parents=True)
    assert len(sorted(tmp_path.rglob("*"))) == len(before) + 2
    remove_checkpoints(out)
    assert sorted(tmp_path.rglob("*")) == before
