"""Laws of cached activations: each once per epoch, no silent repeats, early stopping."""

import json
import math
from itertools import islice, pairwise
from pathlib import Path

import pytest
import torch
from checkpoints import random_family

from saelens_steer.data import counted_corpus, load_corpus, special_ids
from saelens_steer.errors import InputError
from saelens_steer.model import load_model
from saelens_steer.sae import sae_fingerprint, train_sae
from saelens_steer.sae.training import runner as runner_module
from saelens_steer.sae.training import train as module
from saelens_steer.sae.training.activation_stream import cached, epochs
from saelens_steer.sae.training.config import runner_config
from saelens_steer.sae.training.log import held_out_line
from saelens_steer.sae.training.runner import Patience, Runner, held_out_tokens

HOOK = "blocks.2.hook_mlp_out"
SETUP = {
    "architecture": "standard",
    "options": {"l1_coefficient": 0.01},
    "normalize": "mean_scale",
    "cached_tokens": 1000,
    "training_tokens": 6000,
    "batch_tokens": 128,
    "lr": 3e-3,
    "lr_scheduler": "cosineannealing",
    "lr_end": 1.5e-3,
    "patience": 4,
}
"""All options together: six epochs, learning rate annealed to half, mean_scale."""


def json_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def trained(random_model, small, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "sae"
    train_sae(random_model, small(**SETUP), HOOK, out)
    return out


def test_all_settings_together_train_an_sae_that_gets_better(trained):
    lines = json_lines(trained / "metrics.jsonl")
    pairs = pairwise(lines)
    ends = [line for before, line in pairs if int(line["epoch"]) > int(before["epoch"])]
    assert [int(line["epoch"]) for line in ends] == [1, 2, 3, 4, 5, 6]
    assert ends[-1]["held_out_loss"] < ends[0]["held_out_loss"]
    assert lines[-1]["explained_variance"] > lines[0]["explained_variance"]
    assert all(math.isfinite(value) for line in lines for value in line.values())
    quality = json.loads((trained / "quality.json").read_text())
    assert quality["epochs"] == pytest.approx(6016 / 1000) and quality["stopped_early"] is False
    assert quality["explained_variance"] > 0


def test_equal_seeds_give_equal_bytes_and_other_seeds_others(
    random_model, small, tmp_path, trained
):
    torch.rand(3)
    train_sae(random_model, small(**SETUP), HOOK, tmp_path / "again")
    train_sae(random_model, small(**SETUP, seed=1), HOOK, tmp_path / "other")
    for name in ("metrics.jsonl", "quality.json", "cfg.json", "sae_weights.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (trained / name).read_bytes()
    assert sae_fingerprint(tmp_path / "other") != sae_fingerprint(trained)


def test_measuring_the_held_out_loss_changes_nothing(random_model, small, tmp_path, monkeypatch):
    spec = small(cached_tokens=1024, options={"k": 4})
    train_sae(random_model, spec, HOOK, tmp_path / "measured")
    monkeypatch.setattr(runner_module, "held_out_line", lambda *a: {"held_out_loss": 1.0})
    train_sae(random_model, spec, HOOK, tmp_path / "unmeasured")
    assert sae_fingerprint(tmp_path / "measured") == sae_fingerprint(tmp_path / "unmeasured")


# --- the cache


def test_every_vector_comes_once_an_epoch_and_in_a_new_order():
    cache = torch.arange(10.0)[:, None]
    seen = torch.cat(list(islice(epochs(cache, batch=4, seed=0), 5))).flatten()
    first, second = seen[:10], seen[10:]
    assert first.sort()[0].tolist() == second.sort()[0].tolist() == list(range(10))
    assert first.tolist() != second.tolist() and first.tolist() != list(range(10))
    again = torch.cat(list(islice(epochs(cache, batch=4, seed=0), 5))).flatten()
    other = torch.cat(list(islice(epochs(cache, batch=4, seed=1), 5))).flatten()
    assert again.equal(seen) and not other.equal(seen)


def test_the_cache_is_one_tensor_of_the_models_dtype_in_the_order_of_the_corpus():
    parts = list(torch.randn(50, 3).split(8))
    cache = cached(iter(parts), 20, torch.bfloat16)
    assert cache.shape == (20, 3) and cache.dtype == torch.bfloat16
    assert cache.equal(torch.cat(parts)[:20].bfloat16())
    assert cache.untyped_storage().nbytes() == 20 * 3 * 2


def test_a_cache_that_memory_cannot_hold_is_refused_with_its_size():
    with pytest.raises(InputError, match=r"10000000000000 cached .* take 120000\.0 GB.*lower"):
        cached(iter([torch.zeros(1, 3)]), 10**13, torch.float32)


def test_a_corpus_that_does_not_fill_the_cache_is_refused_and_not_repeated(
    random_model, small, tmp_path
):
    spec = small(cached_tokens=100_000, training_tokens=100_000)
    with pytest.raises(InputError, match=r"gives only \d{4} activations, not 105000 .*lower"):
        train_sae(random_model, spec, HOOK, tmp_path / "sae")
    assert list(tmp_path.iterdir()) == []


def test_text_is_loaded_for_the_cache_and_not_for_every_epoch(
    random_model, small, tmp_path, monkeypatch
):
    asked = []

    def noted(name, tokenizer, n_tokens, seed):
        asked.append(n_tokens)
        return counted_corpus(name, tokenizer, n_tokens, seed)

    monkeypatch.setattr(module, "counted_corpus", noted)
    monkeypatch.setattr(module.Training, "_train_into", lambda *a: pytest.fail("asked"))
    with pytest.raises(pytest.fail.Exception, match="asked"):
        spec = small(cached_tokens=1000, training_tokens=10**9)
        train_sae(random_model, spec, HOOK, tmp_path / "sae")
    assert 1000 < asked[0] < 20_000


def runner_of(model, spec, hook_name: str = HOOK) -> Runner:
    texts = load_corpus(spec.corpus, model.tokenizer, 10**6, 0)
    return Runner(runner_config(spec, model, hook_name, Path("unused")), texts, model, spec)


@pytest.fixture(scope="module")
def model_with_bos(tmp_path_factory):
    return load_model(str(random_family(tmp_path_factory.mktemp("gpt2"), "gpt2")))


@pytest.mark.parametrize("with_bos", [True, False])
@pytest.mark.parametrize("name", ["mlp_out", "attn_out", "resid_mid", "resid_post", "resid_pre"])
def test_bos_and_other_special_tokens_are_never_cached_at_any_hook(
    model_with_bos, small, tmp_path, name, with_bos
):
    model = model_with_bos
    path, hook_name = tmp_path / "chat.txt", f"blocks.2.hook_{name}"
    path.write_text("\n\n".join(f"<|im_start|>user\nadd {i}<|im_end|>" for i in range(300)))
    spec = small(corpus=str(path), cached_tokens=500, max_norm=None, prepend_bos=with_bos)
    tokens = runner_of(model, spec, hook_name).activations_store.get_batch_tokens()
    special = torch.isin(tokens, torch.tensor(sorted(special_ids(model.tokenizer))))
    assert special.any() and special[:, 0].all().item() >= with_bos
    stream = runner_of(model, spec, hook_name).stream
    vectors = next(stream.kept(repeat=False))
    with torch.no_grad():
        held = model.run_with_cache(tokens, names_filter=hook_name)[1][hook_name]
    torch.testing.assert_close(vectors, held[~special])


def test_held_out_activations_are_not_in_the_cache(random_model, small):
    spec = small(cached_tokens=1000)
    runner = runner_of(random_model, spec)
    batches = runner._cached(0)
    stream = torch.cat(list(islice(runner_of(random_model, spec).stream.kept(repeat=False), 8)))
    n = held_out_tokens(1000)
    assert runner.held_out.equal(stream[:n]) and n == 50
    epoch = torch.cat(list(islice(batches, 4)))[:1000]
    assert sorted(epoch.tolist()) == sorted(stream[n : n + 1000].tolist())


# --- when to stop


def test_patience_ends_when_the_best_loss_has_not_fallen_by_a_thousandth():
    patience = Patience(2)
    falling = [1.0, 0.9, 0.8999, 0.8, 0.7999, 0.7998]
    assert [patience.is_over(loss) for loss in falling] == [False] * 5 + [True]
    assert not any(Patience(None).is_over(1.0) for _ in range(100))


def test_a_training_without_improvement_stops_early_and_records_it(
    random_model, small, tmp_path, monkeypatch
):
    monkeypatch.setattr(runner_module, "held_out_line", lambda *a: {"held_out_loss": 1.0})
    spec = small(**SETUP | {"training_tokens": 100_000, "patience": 2})
    sae = train_sae(random_model, spec, HOOK, tmp_path / "sae")
    quality = json.loads((tmp_path / "sae/quality.json").read_text())
    assert quality["stopped_early"] is True and 3 <= quality["epochs"] < 3.2
    lines = json_lines(tmp_path / "sae/metrics.jsonl")
    assert lines[-1]["tokens"] == round(quality["epochs"] * 1000)
    torch.testing.assert_close(sae.W_dec.norm(dim=-1), torch.ones(32), atol=1e-5, rtol=0)
    assert sae.cfg.metadata.l0 is not None, "SAELens finished its own way"


@pytest.mark.parametrize("architecture", ["standard", "batchtopk", "jumprelu"])
def test_the_held_out_loss_leaves_the_sae_as_it_is_and_counts_the_whole_penalty(
    random_model, small, architecture
):
    options = {"standard": {"l1_coefficient": 2.0, "l1_warm_up_steps": 1000}}
    spec = small(architecture=architecture, options=options.get(architecture, {}))
    if architecture == "batchtopk":
        spec = small()
    sae = runner_of(random_model, spec).sae
    scheduler = {n: type("S", (), {"final_value": 2.0}) for n in sae.get_coefficients()}
    config = type("C", (), {"train_batch_size_samples": 32})
    trainer = type("T", (), {"sae": sae, "cfg": config, "n_training_steps": 0})
    trainer.coefficient_schedulers = scheduler
    trainer.activation_scaler = staticmethod(lambda x: x)
    sae.requires_grad_(False)
    before = {name: w.clone() for name, w in sae.state_dict().items()}
    x = torch.randn(100, 32, generator=torch.Generator().manual_seed(0))
    found = held_out_line(trainer, x)
    loss = found["held_out_loss"]
    assert all(w.equal(before[name]) for name, w in sae.state_dict().items())
    if architecture == "standard":
        z = sae.encode(x)
        squared = (sae(x) - x).pow(2).sum(-1).mean()
        penalty = 2.0 * (z * sae.W_dec.norm(dim=-1)).sum(-1).mean()
        assert loss == pytest.approx(float(squared + penalty), rel=1e-5)
        assert found["held_out_l0"] == pytest.approx(float((z > 0).sum(-1).float().mean()))
        left = (sae(x) - x).pow(2).sum() / (x - x.mean(0)).pow(2).sum()
        left = pytest.approx(float(1 - left), abs=1e-6)
        assert found["held_out_explained_variance"] == left


@pytest.mark.slow
def test_held_out_activations_are_in_the_units_trained_in(random_model, small, tmp_path):
    """SAELens's own normalisation scales the training batches, so the curves must agree."""
    options = {"k": 4, "normalize_activations": "expected_average_only_in"}
    train_sae(random_model, small(options=options), HOOK, tmp_path / "sae")
    lines = json_lines(tmp_path / "sae/metrics.jsonl")
    assert lines[0]["held_out_loss"] == pytest.approx(lines[0]["mse_loss"], rel=0.3)


def test_held_out_sums_are_those_of_one_batch(random_model, small):
    sae = runner_of(random_model, small()).sae.requires_grad_(False)
    trainer = type("T", (), {"sae": sae, "n_training_steps": 0, "coefficient_schedulers": {}})
    trainer.activation_scaler = staticmethod(lambda x: x)
    x = torch.randn(96, 32, generator=torch.Generator().manual_seed(1)) + 3
    found = []
    for size in (96, 32):
        trainer.cfg = type("C", (), {"train_batch_size_samples": size})
        sae.cfg.k = 4
        found.append(held_out_line(trainer, x)["held_out_explained_variance"])
    whole = sae.training_forward_pass(runner_input(x))
    left = (whole.sae_out - x).pow(2).sum() / (x - x.mean(0)).pow(2).sum()
    assert found[0] == pytest.approx(float(1 - left), rel=1e-4)
    assert found[1] == pytest.approx(found[0], abs=0.05), "BatchTopK goes by its batch"


def runner_input(x):
    from sae_lens.saes.sae import TrainStepInput

    return TrainStepInput(x, {}, None, 0, False)


# --- refusals


@pytest.mark.parametrize(
    ("settings", "hint"),
    [
        ({"cached_tokens": 4097}, "between batch_tokens = 256 and training_tokens = 4096.*4097"),
        ({"cached_tokens": 255}, "cached_tokens must be between batch_tokens = 256"),
        ({"patience": 3}, "patience counts epochs of cached activations"),
        ({"cached_tokens": 512, "patience": 0}, "patience"),
        ({"normalize": "mean"}, "normalize"),
    ],
)
def test_epochs_that_cannot_be_are_refused_by_the_config(small, settings, hint):
    with pytest.raises(ValueError, match=hint):
        small(**settings)
