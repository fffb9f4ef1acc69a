"""Laws of the frozen-decoder baseline: decoder directions never change, the rest is trained."""

import json
from pathlib import Path

import pytest
import torch
from sae_lens import SAE
from torch.nn.functional import normalize

from saelens_steer.config import TrainSpec
from saelens_steer.data import load_corpus
from saelens_steer.errors import InputError
from saelens_steer.sae import check_train_spec, train_sae
from saelens_steer.sae.training.config import runner_config
from saelens_steer.sae.training.runner import Runner
from saelens_steer.sae.training.train import split_corpus

HOOK = "blocks.2.hook_resid_pre"
OPTIONS = {
    "batchtopk": {"k": 4},
    "topk": {"k": 4},
    "abstopk": {"k": 4},
    "standard": {"l1_coefficient": 1.0},
    "gated": {"l1_coefficient": 1.0},
    "jumprelu": {"l0_coefficient": 1.0},
    "matryoshka_batchtopk": {"k": 4, "matryoshka_widths": [8, 32]},
}


def drawn(model, spec: TrainSpec) -> tuple[torch.Tensor, torch.Tensor]:
    """SAELens's initial encoder and decoder, before any step."""
    texts = load_corpus(spec.corpus, model.tokenizer, 5000, spec.seed)
    with torch.random.fork_rng():
        torch.manual_seed(spec.seed)
        config = runner_config(spec, model, HOOK, Path("unused"))
        sae = Runner(config, split_corpus(texts)[0], model, spec).sae
    return sae.W_enc.detach().clone(), sae.W_dec.detach().clone()


@pytest.mark.parametrize("architecture", OPTIONS)
def test_the_decoder_stays_as_it_was_drawn_while_the_encoder_is_trained(
    random_model, small, tmp_path, architecture
):
    spec = small(architecture=architecture, options=OPTIONS[architecture], frozen_decoder=True)
    encoder, decoder = drawn(random_model, spec)
    sae = train_sae(random_model, spec, HOOK, tmp_path / "sae").requires_grad_(False)
    directions = normalize(decoder, dim=-1)
    torch.testing.assert_close(normalize(sae.W_dec, dim=-1), directions, atol=1e-6, rtol=0)
    moved = normalize(sae.W_enc, dim=0) - normalize(encoder, dim=0)
    assert float(moved.norm(dim=0).median()) > 0.01
    assert float(sae.b_dec.norm()) > 0


def test_not_a_bit_of_the_decoder_changes_in_training(random_model, small, tmp_path):
    spec = small(frozen_decoder=True)
    corpus = split_corpus(load_corpus(spec.corpus, random_model.tokenizer, 5000, spec.seed))[0]
    with torch.random.fork_rng():
        runner = Runner(
            runner_config(spec, random_model, HOOK, tmp_path), corpus, random_model, spec
        )
        before = runner.sae.W_dec.detach().clone()
        runner.run()
    assert runner.sae.W_dec.equal(before)


def test_without_freezing_the_directions_are_trained(random_model, small, tmp_path):
    spec = small()
    decoder = drawn(random_model, spec)[1]
    sae = train_sae(random_model, spec, HOOK, tmp_path / "sae").requires_grad_(False)
    moved = normalize(sae.W_dec, dim=-1) - normalize(decoder, dim=-1)
    assert float(moved.norm(dim=-1).median()) > 0.01


def test_a_seed_decides_the_decoder_whatever_else_is_trained(random_model, small, tmp_path):
    specs = {
        "one": small(frozen_decoder=True),
        "slower": small(frozen_decoder=True, lr=1e-4),
        "other": small(frozen_decoder=True, seed=1),
    }
    found = {name: train_sae(random_model, s, HOOK, tmp_path / name) for name, s in specs.items()}
    assert found["one"].W_dec.equal(found["slower"].W_dec)
    assert not found["one"].W_enc.equal(found["slower"].W_enc)
    assert not found["one"].W_dec.equal(found["other"].W_dec)


@pytest.mark.parametrize("more", [{}, {"normalize": "mean_scale", "cached_tokens": 1024}])
def test_the_saved_sae_says_that_its_decoder_was_frozen(random_model, small, tmp_path, more):
    train_sae(
        random_model, small(frozen_decoder=True, **more), HOOK, tmp_path / "frozen_decoder_baseline"
    )
    train_sae(random_model, small(**more), HOOK, tmp_path / "trained")
    assert (
        SAE.load_from_disk(str(tmp_path / "frozen_decoder_baseline")).cfg.metadata.frozen_decoder
        is True
    )
    assert SAE.load_from_disk(str(tmp_path / "trained")).cfg.metadata.frozen_decoder is None


def test_scaled_activations_leave_the_directions_as_drawn(random_model, small, tmp_path):
    spec = small(frozen_decoder=True, normalize="mean_scale", cached_tokens=1024)
    decoder = drawn(random_model, spec)[1]
    sae = train_sae(random_model, spec, HOOK, tmp_path / "sae")
    directions = normalize(decoder, dim=-1)
    torch.testing.assert_close(sae.W_dec.detach(), directions, atol=1e-6, rtol=0)


def test_where_directions_cannot_stay_freezing_is_refused(small):
    tied = small(architecture="matching_pursuit", options={}, frozen_decoder=True)
    with pytest.raises(InputError, match="its encoder is its decoder"):
        check_train_spec(tied)
    options = {"k": 4, "normalize_activations": "covariance_whitening"}
    with pytest.raises(InputError, match="changes the decoder's directions"):
        check_train_spec(small(options=options, frozen_decoder=True))
    check_train_spec(small(options=options))
    scaled = {"k": 4, "normalize_activations": "expected_average_only_in"}
    check_train_spec(small(options=scaled, frozen_decoder=True))


@pytest.mark.slow
def test_the_twin_rebuilds_more_than_an_untrained_sae_and_less_than_a_trained_one(
    tiny_model, tmp_path
):
    hook = "blocks.4.hook_resid_pre"
    settings = {"architecture": "topk", "options": {"k": 20}, "d_sae": 512}
    settings |= {"training_tokens": 60_000}
    saes = {
        "untrained": TrainSpec(**settings | {"lr": 1e-12}),
        "frozen_decoder_baseline": TrainSpec(**settings, frozen_decoder=True),
        "trained": TrainSpec(**settings),
    }
    rebuilt = {}
    for name, spec in saes.items():
        train_sae(tiny_model, spec, hook, tmp_path / name)
        quality = json.loads((tmp_path / name / "quality.json").read_text())
        rebuilt[name] = quality["explained_variance"]
    assert (
        rebuilt["untrained"] + 0.1 < rebuilt["frozen_decoder_baseline"] < rebuilt["trained"] - 0.05
    ), rebuilt
