"""Laws of normalisation: an SAE trained on scaled activations reads raw ones when saved."""

import copy
import json

import pytest
import torch
from sae_lens import SAE
from sae_lens.registry import SAE_TRAINING_CLASS_REGISTRY

from saelens_steer.errors import InputError
from saelens_steer.sae import check_train_spec, train_sae
from saelens_steer.sae.training import runner as runner_module
from saelens_steer.sae.training import scaling as module
from saelens_steer.sae.training.scaling import (
    FOLDABLE,
    SCALABLE,
    Scaling,
    fold_decoder_norms,
    fold_scaling,
    scaling_of,
)

HOOK = "blocks.2.hook_mlp_out"
OPTIONS = {
    "standard": {"l1_coefficient": 0.01},
    "gated": {"l1_coefficient": 0.01},
    "jumprelu": {"l0_coefficient": 0.01},
    "topk": {"k": 4},
    "abstopk": {"k": 4},
    "batchtopk": {"k": 4},
    "matryoshka_batchtopk": {"k": 4, "matryoshka_widths": [8, 32]},
}
D_IN, D_SAE = 16, 40


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def saved(architecture: str, folder, **options) -> SAE:
    """An SAE of this training architecture with random weights, as SAELens saves it."""
    sae_class, config_class = SAE_TRAINING_CLASS_REGISTRY[architecture]
    own = {} if architecture in FOLDABLE else {"rescale_acts_by_decoder_norm": True}
    given = OPTIONS[architecture] | own | options
    if "matryoshka_widths" in given:
        given["matryoshka_widths"] = [8, D_SAE]
    sae = sae_class(config_class(d_in=D_IN, d_sae=D_SAE, **given))
    for seed, (name, weight) in enumerate(sorted(sae.named_parameters())):
        weight.data = (
            drawn(*weight.shape, seed=seed).abs_()
            if name == "threshold"
            else (0.5 * drawn(*weight.shape, seed=seed))
        )
    if hasattr(sae, "topk_threshold"):
        sae.topk_threshold.fill_(0.7)
    sae.save_inference_model(str(folder))
    return SAE.load_from_disk(str(folder))


@torch.no_grad()
@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("architecture", SCALABLE)
def test_the_folded_sae_on_raw_activations_is_the_trained_one_on_scaled_ones(
    tmp_path, architecture, centred
):
    trained = saved(architecture, tmp_path, apply_b_dec_to_input=centred)
    fold_decoder_norms(trained)
    folded, scaling = copy.deepcopy(trained), Scaling(3 * drawn(D_IN, seed=90), 7.5)
    fold_scaling(folded, scaling)
    x = scaling.mean + 7.5 * drawn(500, D_IN, seed=91)
    z, z_scaled = folded.encode(x), trained.encode(scaling(x))
    assert 0 < (z_scaled != 0).float().mean() < 1
    assert ((z != 0) == (z_scaled != 0)).all()
    error = (z - 7.5 * z_scaled).norm() / z.norm()
    assert error < 1e-5
    wanted = 7.5 * trained(scaling(x)) + scaling.mean
    assert (folded(x) - wanted).norm() / wanted.norm() < 1e-5
    assert folded.W_dec.equal(trained.W_dec) and folded.W_enc.equal(trained.W_enc)
    torch.testing.assert_close(folded.W_dec.norm(dim=-1), torch.ones(D_SAE))


@pytest.mark.parametrize("architecture", OPTIONS)
def test_a_training_on_scaled_activations_saves_an_sae_of_raw_ones(
    random_model, small, tmp_path, monkeypatch, architecture
):
    before = []

    def noted(sae, scaling):
        before.append((copy.deepcopy(sae), scaling))
        fold_scaling(sae, scaling)

    monkeypatch.setattr(module, "fold_scaling", noted)
    spec = small(
        architecture=architecture,
        options=OPTIONS[architecture],
        normalize="mean_scale",
        training_tokens=2048,
    )
    train_sae(random_model, spec, HOOK, tmp_path / "sae")
    sae, [(trained, scaling)] = SAE.load_from_disk(str(tmp_path / "sae")), before
    x = residuals(random_model, torch.arange(3, 200)[None])
    wanted = scaling.scale * trained(scaling(x)) + scaling.mean
    assert (sae(x) - wanted).norm() / wanted.norm() < 1e-5
    torch.testing.assert_close(sae.W_dec.norm(dim=-1), torch.ones(32), atol=1e-5, rtol=0)
    metadata = json.loads((tmp_path / "sae/cfg.json").read_text())["metadata"]
    assert metadata["activation_scale"] == pytest.approx(scaling.scale)
    assert metadata["activation_mean_norm"] == pytest.approx(float(scaling.mean.norm()))
    assert not {"activation_mean", "unit_norm_per_token"} & set(metadata)


@torch.no_grad()
def residuals(model, tokens: torch.Tensor) -> torch.Tensor:
    return model.run_with_cache(tokens, names_filter=HOOK)[1][HOOK].flatten(0, 1)


def test_mean_and_scale_are_those_of_the_vectors_and_give_unit_norm_on_average():
    vectors = 5 + 3 * drawn(20_000, D_IN)
    scaling = scaling_of(vectors)
    torch.testing.assert_close(scaling.mean, vectors.mean(0), atol=1e-5, rtol=1e-5)
    assert scaling.scale == pytest.approx(float((vectors - vectors.mean(0)).norm(dim=-1).mean()))
    scaled = scaling(vectors.bfloat16())
    assert scaled.dtype == torch.float32
    assert float(scaled.norm(dim=-1).mean()) == pytest.approx(1, abs=1e-3)
    assert float(scaled.mean(0).norm()) == pytest.approx(0, abs=1e-3)


def test_activations_that_do_not_differ_are_refused():
    with pytest.raises(InputError, match="needs activations that differ, but all 8 are the same"):
        scaling_of(torch.ones(8, D_IN))


def test_what_the_trainer_sees_is_scaled(random_model, small, tmp_path, monkeypatch):
    seen, log_line = [], runner_module.log_line

    def noted(trainer, output):
        seen.append(output.sae_in)
        return log_line(trainer, output)

    monkeypatch.setattr(runner_module, "log_line", noted)
    train_sae(random_model, small(normalize="mean_scale"), HOOK, tmp_path / "sae")
    x = torch.cat(seen)
    assert float(x.norm(dim=-1).mean()) == pytest.approx(1, abs=0.05)
    assert float(x.mean(0).norm()) == pytest.approx(0, abs=0.1)


def test_an_architecture_that_cannot_be_folded_is_refused_by_name(small):
    assert set(SCALABLE) == set(SAE_TRAINING_CLASS_REGISTRY) - {"matching_pursuit"}
    spec = small(architecture="matching_pursuit", options={}, normalize="mean_scale")
    with pytest.raises(InputError, match=r"folded exactly into matching_pursuit: use .* standard"):
        check_train_spec(spec)


def test_two_normalisations_are_refused(small):
    options = {"k": 4, "normalize_activations": "layer_norm"}
    with pytest.raises(InputError, match="in addition to normalize mean_scale: remove one"):
        check_train_spec(small(options=options, normalize="mean_scale"))
    check_train_spec(
        small(architecture="standard", options={"normalize_activations": "layer_norm"})
    )
