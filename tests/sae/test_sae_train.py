"""Laws of training: SAELens's format, reproducible, without side effects."""

import json
import math
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from sae_lens import SAE

from saelens_steer.config import TrainSpec
from saelens_steer.errors import InputError
from saelens_steer.sae import check_train_spec, sae_fingerprint, train_sae
from saelens_steer.sae.training import activation_stream as stream_module
from saelens_steer.sae.training import runner as runner_module
from saelens_steer.sae.training import train as module
from saelens_steer.sae.training.config import runner_config
from saelens_steer.sae.training.runner import Runner
from saelens_steer.sae.training.train import split_corpus

HOOK = "blocks.2.hook_resid_pre"
OPTIONS = {
    "batchtopk": {"k": 4},
    "topk": {"k": 4},
    "standard": {"l1_coefficient": 1.0},
    "gated": {"l1_coefficient": 1.0},
    "jumprelu": {"l0_coefficient": 1.0},
    "matryoshka_batchtopk": {"k": 4, "matryoshka_widths": [8, 32]},
}


def json_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def trained(random_model, small, tmp_path_factory) -> tuple[SAE, Path]:
    """A batchtopk SAE, and its folder."""
    out = tmp_path_factory.mktemp("trained") / "sae"
    return train_sae(random_model, small(), HOOK, out), out


@pytest.mark.parametrize("architecture", OPTIONS)
def test_every_architecture_is_trained_saved_and_read_by_sae_lens(
    random_model, small, tmp_path, architecture
):
    spec = small(architecture=architecture, options=OPTIONS[architecture])
    sae = train_sae(random_model, spec, HOOK, tmp_path / "sae")
    read = SAE.load_from_disk(str(tmp_path / "sae"))
    assert read.cfg.metadata.hook_name == sae.cfg.metadata.hook_name == HOOK
    assert (read.cfg.d_in, read.cfg.d_sae) == (random_model.cfg.d_model, 32)
    assert all(
        w.equal(read.state_dict()[name]) and w.isfinite().all()
        for name, w in sae.state_dict().items()
    )
    x = torch.randn(5, random_model.cfg.d_model)
    torch.testing.assert_close(read(x), sae(x))
    quality = json.loads((tmp_path / "sae/quality.json").read_text(), parse_constant=pytest.fail)
    numbers = [value for value in quality.values() if isinstance(value, int | float)]
    assert len(numbers) >= 18 and all(math.isfinite(value) for value in numbers)
    assert quality["verdict"].split(":")[0] in ("Good", "Usable with care", "Poor")
    assert [p.name for p in tmp_path.iterdir()] == ["sae"]


@pytest.mark.parametrize("architecture", ["batchtopk", "topk", "standard", "gated", "jumprelu"])
def test_decoder_rows_have_unit_norm_so_that_one_alpha_fits_all(
    random_model, small, tmp_path, architecture
):
    spec = small(architecture=architecture, options=OPTIONS[architecture])
    sae = train_sae(random_model, spec, HOOK, tmp_path / "sae")
    torch.testing.assert_close(sae.W_dec.norm(dim=-1), torch.ones(32), atol=1e-5, rtol=0)


def test_training_makes_the_sae_better(trained):
    lines = json_lines(trained[1] / "metrics.jsonl")
    assert lines[-1]["mse_loss"] < lines[0]["mse_loss"]
    assert lines[-1]["explained_variance"] > lines[0]["explained_variance"]


def test_the_log_counts_steps_and_tokens_and_is_finite(trained):
    lines = json_lines(trained[1] / "metrics.jsonl")
    assert [line["step"] for line in lines] == [0, 5, 10, 15]
    assert lines[0]["tokens"] == 256 * (lines[0]["step"] + 1)
    assert lines[-1]["tokens"] == 4096
    for line in lines:
        assert all(math.isfinite(value) for value in line.values())
        assert {"loss", "mse_loss", "l0", "explained_variance", "dead_share"} <= set(line)
        assert line["l0"] == pytest.approx(4, abs=0.1)
        held_out = {"held_out_loss", "held_out_l0", "held_out_explained_variance"}
        assert held_out <= set(line)


def test_equal_seeds_give_equal_bytes_and_other_seeds_others(
    random_model, small, tmp_path, trained
):
    torch.rand(3)
    train_sae(random_model, small(), HOOK, tmp_path / "again")
    train_sae(random_model, small(seed=1), HOOK, tmp_path / "other")
    assert sae_fingerprint(tmp_path / "again") == sae_fingerprint(trained[1])
    assert sae_fingerprint(tmp_path / "other") != sae_fingerprint(trained[1])
    again = (tmp_path / "again/metrics.jsonl").read_text()
    assert again == (trained[1] / "metrics.jsonl").read_text()


def test_nothing_else_is_touched(random_model, small, tmp_path, monkeypatch):
    for name in ("init", "log", "finish"):
        monkeypatch.setattr(f"wandb.{name}", lambda *a, **k: pytest.fail("wandb was opened"))
    before = {n: p.clone() for n, p in random_model.named_parameters()}
    torch_state, numpy_state = torch.get_rng_state(), str(np.random.get_state())
    handlers = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    monkeypatch.chdir(tmp_path)  # wandb and datasets like to write where they stand
    train_sae(random_model, small(), HOOK, tmp_path / "sae")
    assert torch.get_rng_state().equal(torch_state)
    assert str(np.random.get_state()) == numpy_state
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert all(p.equal(before[n]) for n, p in random_model.named_parameters())
    assert not any(point.fwd_hooks for point in random_model.hook_dict.values())
    assert [p.name for p in tmp_path.iterdir()] == ["sae"]


# --- which tokens are trained on


def first_batches(model, spec: TrainSpec, corpus: Path, n: int) -> tuple[torch.Tensor, Runner]:
    """The first vectors that a runner of this spec would train on."""
    from saelens_steer.data import load_corpus

    texts = load_corpus(str(corpus), model.tokenizer, 5000, 0)
    runner = Runner(runner_config(spec, model, HOOK, Path("unused")), texts, model, spec)
    kept = runner.stream.kept(repeat=True)
    return torch.cat([next(kept) for _ in range(n)]), runner


def contexts_of(runner: Runner, n: int) -> torch.Tensor:
    """The tokens of the first batches, read from a store of the same text."""
    spec = runner.spec
    fresh = Runner(
        runner_config(spec, runner.model, HOOK, Path("unused")),
        runner.activations_store.dataset,
        runner.model,
        spec,
    )
    return torch.cat([fresh.activations_store.get_batch_tokens() for _ in range(n)])


def residuals(model, tokens: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model.run_with_cache(tokens, names_filter=HOOK)[1][HOOK]


def test_special_tokens_are_not_trained_on(random_model, small, tmp_path):
    path = tmp_path / "chat.txt"
    path.write_text("\n\n".join(f"<|im_start|>user\nadd {i}<|im_end|>" for i in range(300)))
    vectors, runner = first_batches(random_model, small(max_norm=None), path, 2)
    tokens = contexts_of(runner, 2)
    special = torch.isin(tokens, torch.tensor(random_model.tokenizer.all_special_ids))
    assert special.any()
    torch.testing.assert_close(vectors, residuals(random_model, tokens)[~special])


def test_diagnostic_trains_on_fences_and_delimiters_alone(random_model, small, corpus):
    spec = small(tokens="diagnostic", max_norm=None)
    vectors, runner = first_batches(random_model, spec, corpus, 3)
    tokens = contexts_of(runner, 3)
    marks = {"```", "$", "$$", "\\(", "\\["}
    texts = [[random_model.tokenizer.decode([t]).strip() in marks for t in row] for row in tokens]
    wanted = torch.tensor(texts)
    wanted[:, -1] = False
    torch.testing.assert_close(vectors, residuals(random_model, tokens)[wanted])


def test_a_corpus_without_a_wanted_token_is_refused_and_not_searched_for_ever(
    random_model, small, tmp_path, monkeypatch
):
    monkeypatch.setattr(stream_module, "EMPTY_BATCHES", 3)
    path = tmp_path / "prose.txt"
    path.write_text("\n\n".join(f"show your work and add {i} numbers" for i in range(200)))
    spec = small(corpus=str(path), tokens="diagnostic")
    with pytest.raises(InputError, match="no token to train on: tokens is diagnostic"):
        train_sae(random_model, spec, HOOK, tmp_path / "sae")
    assert [p.name for p in tmp_path.iterdir()] == ["prose.txt"]


def test_sinks_are_not_trained_on_and_counted(random_model, small, corpus):
    def plant(resid, hook):
        resid[:, 3] *= 1000
        return resid

    with random_model.hooks(fwd_hooks=[(HOOK, plant)]):
        vectors, runner = first_batches(random_model, small(), corpus, 1)
        unfiltered, _ = first_batches(random_model, small(max_norm=None), corpus, 1)
    sinks = unfiltered.norm(dim=-1) > 10 * unfiltered.norm(dim=-1).median()
    assert runner.stream.sinks_dropped == int(sinks.sum()) == 256 // 32
    torch.testing.assert_close(vectors, unfiltered[~sinks])


def test_the_held_out_texts_are_the_last_and_not_trained_on(random_model, corpus):
    from saelens_steer.data import load_corpus

    texts = load_corpus(str(corpus), random_model.tokenizer, 10**6, 0)
    training, held_out = split_corpus(texts)
    assert [*training["text"], *held_out["text"]] == list(texts["text"])
    assert len(held_out) == round(0.02 * len(texts))
    assert len(split_corpus(texts.select(range(2)))[1]) == 1


def test_of_a_small_corpus_a_larger_share_is_held_out(random_model, small):
    spec = small()
    training, held_out = module.load_texts(random_model, spec)
    share = len(held_out) / (len(training) + len(held_out))
    assert share == pytest.approx(0.1, abs=0.01)
    tenth = TrainSpec().model_copy(update={"training_tokens": 490_000})
    assert module.HELD_OUT_LEAST / module._text_tokens(tenth) < module.HELD_OUT_SHARE


def test_an_architecture_that_counts_features_is_told_how_many(small):
    with pytest.raises(InputError, match="topk needs options: "):
        check_train_spec(small(architecture="topk", options={}))


# --- the settings that reach SAELens


def test_warm_up_and_decay_leave_room_for_the_learning_rate_itself(random_model, small):
    config = runner_config(small(), random_model, HOOK, Path("unused"))
    assert (config.lr_warm_up_steps, config.lr_decay_steps) == (4, 4)
    long = small(training_tokens=256 * 1000)
    config = runner_config(long, random_model, HOOK, Path("unused"))
    assert (config.lr_warm_up_steps, config.lr_decay_steps) == (20, 40)


@pytest.mark.parametrize("scheduler", ["constant", "cosineannealing"])
def test_a_short_training_reaches_its_learning_rate(random_model, small, tmp_path, scheduler):
    rates, fit = [], Runner.run_trainer_with_interruption_handling

    def watched(self, trainer):
        step = trainer.step

        def noted(batch):
            rates.append(trainer.optimizer.param_groups[0]["lr"])
            return step(batch)

        trainer.step = noted
        return fit(self, trainer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Runner, "run_trainer_with_interruption_handling", watched)
        train_sae(random_model, small(lr=1e-2, lr_scheduler=scheduler), HOOK, tmp_path / "sae")
    assert max(rates) == pytest.approx(1e-2)
    assert min(rates) >= 0 and rates[0] < 1e-2 > rates[-1]


def test_a_model_without_bos_is_trained_without_one(random_model, small):
    config = runner_config(small(), random_model, HOOK, Path("unused"))
    assert config.prepend_bos is False and config.sequence_separator_token is None
    assert config.logger.log_to_wandb is False and config.checkpoint_path is None


# --- refusals, all before any training


@pytest.mark.parametrize(
    ("settings", "hint"),
    [
        ({"architecture": "topkk"}, "'topkk'; did you mean 'topk'"),
        ({"architecture": "xyz"}, "'xyz'; known: abstopk, batchtopk"),
        ({"options": {"kk": 4}}, "batchtopk has no option 'kk'; did you mean 'k'"),
        ({"architecture": "standard", "options": {"l1": 1.0}}, "'l1_coefficient'|no option 'l1'"),
        ({"options": {"k": 33}}, "k must be a number up to d_sae = 32, not 33"),
        ({"options": {"k": 0}}, "k must be a number"),
        ({"options": {"k": "many"}}, "k must be a number"),
        ({"options": {"k": 4, "d_in": 3}}, "'d_in' is set for you: leave it out of options"),
    ],
)
def test_what_sae_lens_does_not_know_is_refused_with_the_nearest(small, settings, hint):
    with pytest.raises(InputError, match=hint):
        check_train_spec(small(**settings))


@pytest.mark.parametrize(
    ("settings", "hint"),
    [({"architecture": "topkk"}, "topk"), ({"context_size": 100_000}, "n_ctx=512")],
)
def test_what_cannot_be_trained_is_refused_before_any_training(
    random_model, small, tmp_path, monkeypatch, settings, hint
):
    monkeypatch.setattr(module, "Runner", lambda *a: pytest.fail("training began"))
    with pytest.raises(InputError, match=hint):
        train_sae(random_model, small(**settings), HOOK, tmp_path / "sae")
    with pytest.raises(InputError, match="hook_resid_pre"):
        train_sae(random_model, small(), "blocks.2.hook_resid_pr", tmp_path / "sae")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "hint"), [("only one text", "only one text"), ("one\n\ntwo", "do not fill a context")]
)
def test_too_little_text_is_refused(random_model, small, tmp_path, text, hint):
    path = tmp_path / "text.txt"
    path.write_text(text)
    with pytest.raises(InputError, match=hint):
        train_sae(random_model, small(corpus=str(path)), HOOK, tmp_path / "sae")


# --- failures leave nothing behind


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("where", ["step", "save", "quality"])
def test_a_failed_training_leaves_no_folder(
    random_model, small, tmp_path, monkeypatch, where, error
):
    def fail(*args, **kwargs):
        raise error("stop")

    target = {
        "step": (runner_module, "log_line"),
        "save": (module, "write_jsonl"),
        "quality": (module, "sae_quality"),
    }[where]
    monkeypatch.setattr(*target, fail)
    with pytest.raises(error):
        train_sae(random_model, small(), HOOK, tmp_path / "sae")
    assert list(tmp_path.iterdir()) == []


def test_weights_that_are_not_finite_are_refused(random_model, small, tmp_path):
    with pytest.raises(InputError, match=r"not finite after training: lower sae\.train\.lr"):
        train_sae(random_model, small(lr=1e38), HOOK, tmp_path / "sae")
    assert list(tmp_path.iterdir()) == []
