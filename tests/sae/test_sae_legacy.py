"""Laws of converted checkpoints: on raw x they compute what the original does."""

import json
from functools import partial

import legacy_files as old
import pytest
import torch
from legacy_files import B_DEC, B_ENC, D_IN, D_SAE, LINEAR, MEAN, OWN, W_DEC, W_ENC, X
from sae_lens import SAE

from saelens_steer.errors import InputError
from saelens_steer.sae import codec, load_sae, save_sae, source_version

HOOK = "blocks.2.hook_resid_pre"
NEAR = {"atol": 1e-5, "rtol": 1e-5}
MAX = D_SAE - 2


@pytest.fixture
def load(tmp_path):
    return partial(old.load, tmp_path)


def same(sae: SAE, expected: tuple, x=X) -> None:
    """z and reconstruction by SAELens, with unit norm per token through codec."""
    z, rebuilt = expected
    found = codec.encode(sae, x)
    torch.testing.assert_close(found, z.float(), **NEAR)
    torch.testing.assert_close(codec.decode(sae, found, x), rebuilt.float(), **NEAR)
    if not sae.cfg.metadata.unit_norm_per_token:
        torch.testing.assert_close(sae(x), rebuilt.float(), **NEAR)


PREFIXED = {f"module.sae.{name}": value for name, value in OWN.items()}
WRAPPED = {"state_dict": OWN, "config": {"lr": 3e-4, "layers": [1, 2]}, "step": 10}
SAME_SAE = {
    "SAELens's names": (OWN, True),
    "their transposes": (OWN | {"W_enc": W_ENC.T, "W_dec": W_DEC.T}, True),
    "one transposed": (OWN | {"W_dec": W_DEC.T}, True),
    "prefixes": (PREFIXED, True),
    "a state dict": (WRAPPED, True),
    "names in small letters": ({k.lower(): v for k, v in OWN.items()}, True),
    "names that say nothing": (
        {"encoder": W_ENC, "dictionary": W_DEC.T, "b_enc": B_ENC, "b_dec": B_DEC},
        True,
    ),
    "nn.Linear": (LINEAR, False),
    "nn.Linear, all the other way": (
        LINEAR | {"encoder.weight": W_ENC, "decoder.weight": W_DEC},
        False,
    ),
    "an input bias": (
        {
            "pre_bias": B_DEC,
            "latent_bias": B_ENC,
            **old.without(LINEAR, *map(str, list(LINEAR)[1::2])),
        },
        True,
    ),
    "dictionary_learning's bias": ({"bias": B_DEC, **old.without(LINEAR, "decoder.bias")}, True),
    "records of training": (OWN | {"n_forward_passes_since_fired": torch.ones(D_SAE)}, True),
    "a scaling factor of ones": (OWN | {"scaling_factor": torch.ones(D_SAE)}, True),
    "b_dec said to be added only": (OWN | {"cfg": {"apply_b_dec_to_input": False}}, False),
}
SUBTRACTED_BY_NAME = ("an input bias", "dictionary_learning's bias", "b_dec said to be added only")


@pytest.mark.parametrize("case", SAME_SAE)
def test_a_relu_checkpoint_computes_what_it_did(load, case):
    content, subtract = SAME_SAE[case]
    stated = {} if case in SUBTRACTED_BY_NAME else {"apply_b_dec_to_input": subtract}
    sae = load(content, said={"architecture": "standard", **stated})
    assert type(sae).__name__ == "StandardSAE" and (sae.cfg.d_in, sae.cfg.d_sae) == (D_IN, D_SAE)
    same(sae, old.reference(X, subtract=subtract))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_any_precision_are_read_in_float32(load, dtype):
    sae = load({name: weight.to(dtype) for name, weight in OWN.items()}, said=old.RELU)
    for name, weight in sae.state_dict().items():
        assert weight.equal(OWN[name].to(dtype).float()) and weight.dtype == torch.float32


@pytest.mark.parametrize("name", ["sae.pt", "sae.pth", "sae.bin", "sae.safetensors"])
def test_what_the_file_is_decides_how_it_is_read(load, tmp_path, name):
    same(load(OWN, name, said=old.RELU), old.reference(X))
    file = old.saved(tmp_path / "x.safetensors", OWN).rename(tmp_path / "renamed.bin")
    same(load_sae(file), old.reference(X))


def test_a_folder_with_one_checkpoint_is_loaded_with_its_config(tmp_path):
    old.saved(tmp_path / "ae.pt", OWN)
    (tmp_path / "config.json").write_text(
        json.dumps({"trainer": {"k": 3, "hook_name": HOOK, "apply_b_dec_to_input": True}})
    )
    sae = load_sae(tmp_path)
    assert sae.cfg.k == 3 and sae.cfg.metadata.hook_name == HOOK
    old.saved(tmp_path / "other.pt", OWN)
    with pytest.raises(InputError, match=r"several checkpoints: give the path of one \(ae"):
        load_sae(tmp_path)


def test_a_folder_of_sparsify_is_read_by_its_own_config(tmp_path):
    weights = {"encoder.weight": W_ENC.T, "encoder.bias": B_ENC, "W_dec": W_DEC, "b_dec": B_DEC}
    old.saved(tmp_path / "sae.safetensors", weights)
    config = {"d_in": D_IN, "k": 4, "num_latents": 0, "expansion_factor": 3, "signed": False}
    (tmp_path / "cfg.json").write_text(json.dumps(config | {"normalize_decoder": True}))
    same(load_sae(tmp_path), old.reference(X, act=old.top(4)))


def test_weights_without_any_bias_are_an_sae_too(load):
    z = old.relu((X - MEAN) / 2 @ W_ENC)
    content = {"W_enc": W_ENC, "W_dec": W_DEC, "mean": MEAN, "activation_norm": 2}
    same(load(content, said={"activation": "relu"}), (z, 2 * z @ W_DEC + MEAN))


def test_a_separate_input_bias_is_folded_into_the_encoder(load):
    other = old.draw(D_IN, seed=9)
    sae = load(LINEAR | {"pre_bias": other}, said={"activation": "relu"})
    z = old.relu((X - other) @ W_ENC + B_ENC)
    same(sae, (z, z @ W_DEC + B_DEC))


TOPK = {
    "k beside the weights": OWN | {"k": torch.tensor(4)},
    "k in the config": {"state_dict": LINEAR, "cfg": {"activation_fn_kwargs": {"k": 4}}},
    "an older config of SAELens": OWN
    | {
        "architecture": "standard",
        "activation_fn_str": "topk",
        "activation_fn_kwargs": {"k": 4},
    },
    "an unset threshold": OWN | {"k": 4, "threshold": torch.tensor(-1.0)},
    "k and a threshold, said to be TopK": {
        **OWN,
        **{"k": 4, "threshold": torch.tensor(0.3)},
        "config": {"dict_class": "AutoEncoderTopK"},
    },
}


@pytest.mark.parametrize("case", TOPK)
def test_a_topk_checkpoint_keeps_the_k_largest(load, case):
    sae = load(TOPK[case], said=old.SUBTRACTED)
    assert type(sae).__name__ == "TopKSAE" and sae.cfg.k == 4
    same(sae, old.reference(X, act=old.top(4)))


THRESHOLD = old.draw(D_SAE, seed=8).abs()
JUMP = {
    "one for each feature": (OWN | {"threshold": THRESHOLD}, THRESHOLD, False),
    "its logarithm": (OWN | {"log_threshold": THRESHOLD.log()}, THRESHOLD, False),
    "one for all": (OWN | {"threshold": torch.tensor(0.7)}, 0.7, True),
    "BatchTopK": (
        OWN | {"threshold": torch.tensor(0.7), "k": 4, "config": {"dict_class": "BatchTopKSAE"}},
        0.7,
        True,
    ),
}


@pytest.mark.parametrize("case", JUMP)
def test_a_threshold_makes_a_jumprelu_sae(load, case):
    content, threshold, subtract = JUMP[case]
    sae = load(content, said={} if "config" in content else {"apply_b_dec_to_input": subtract})
    assert type(sae).__name__ == "JumpReLUSAE"
    expected = old.reference(X, act=old.jump(threshold), subtract=subtract)
    same(sae, expected)


KINDS = {
    "relu": (OWN, old.RELU, old.relu),
    "nn.Linear": (LINEAR, old.RELU | old.ADDED, old.relu),
    "topk": (OWN | {"k": 3}, old.SUBTRACTED, old.top(3)),
    "jumprelu": (OWN | {"threshold": THRESHOLD}, old.ADDED, old.jump(THRESHOLD)),
}
NORMS = {
    "both": ({"activation_mean": MEAN, "activation_norm": torch.tensor(7.5)}, MEAN, 7.5),
    "other names": ({"act_mean": MEAN.tolist(), "act_std": 7.5}, MEAN, 7.5),
    "a mean": ({"mean": MEAN}, MEAN, 1.0),
    "a norm": ({"activation_norm": 7.5}, 0.0, 7.5),
    "one for each dimension": ({"input_std": MEAN.abs() + 1}, 0.0, (MEAN.abs() + 1).double()),
    "said to be the dataset's": (
        {"input_mean": MEAN, "activation_std": 7.5, "config": {"normalize_activations": True}},
        MEAN,
        7.5,
    ),
}


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_datasets_mean_and_scale_are_folded_and_z_stays_in_its_units(load, kind, norm):
    weights, said, act = KINDS[kind]
    beside, mean, scale = NORMS[norm]
    subtract = said["apply_b_dec_to_input"]
    expected = old.reference(X, subtract=subtract, act=act, mean=mean, scale=scale)
    sae = load({"state_dict": weights, **beside}, said=said)
    same(sae, expected)
    torch.testing.assert_close(sae.W_dec.data, (W_DEC.double() * scale).float())
    if "config" not in beside:
        same(load({**weights, **beside}, said=said), expected)


PER_TOKEN = {
    "normalize: unit": {"config": {"normalize": "unit"}},
    "unit_norm_per_token": {"unit_norm_per_token": 1},
    "per_token_norm": {"cfg": {"sae": {"per_token_norm": True}}},
    "normalize_activations": {"cfg": {"normalize_activations": "per_token"}},
    "and a norm that is then not used": {"per_token_unit_norm": "true", "activation_norm": 9.0},
}


@pytest.mark.parametrize("case", PER_TOKEN)
@pytest.mark.parametrize("kind", KINDS)
def test_unit_norm_per_token_is_recorded_and_done_by_the_codec(load, tmp_path, kind, case):
    weights, said, act = KINDS[kind]
    subtract = said["apply_b_dec_to_input"]
    sae = load({"state_dict": weights, "activation_mean": MEAN, **PER_TOKEN[case]}, said=said)
    size = (X - MEAN).norm(dim=-1, keepdim=True).double()
    expected = old.reference(X, subtract=subtract, act=act, mean=MEAN, scale=size)
    same(sae, expected)
    again = load_sae(save_sae(sae, tmp_path / "saved"))
    assert again.cfg.metadata.unit_norm_per_token is True
    assert again.cfg.metadata.activation_mean == MEAN.tolist()
    same(again, expected)


def test_saelenss_own_normalisation_at_run_time_is_left_to_it(load):
    sae = load(OWN | {"normalize_activations": "layer_norm"}, said=old.RELU)
    centred = X - X.mean(-1, keepdim=True)
    std = centred.std(-1, keepdim=True) + 1e-5
    z, rebuilt = old.reference(centred / std)
    same(sae, (z, rebuilt * std + X.mean(-1, keepdim=True)))


DECODERS = {
    "W_dec with its sizes": {"W_dec": W_DEC, "d_in": D_IN, "d_sae": D_SAE},
    "W_dec the other way, with one size": {"W_dec": W_DEC.T, "d_in": torch.tensor(D_IN)},
    "nn.Linear": {"decoder.weight": W_DEC.T},
    "W_dec alone, by its name": {"W_dec": W_DEC},
    "no convention, but a bias": {"dictionary": W_DEC.T, "b_dec": torch.zeros(D_IN)},
}


@pytest.mark.parametrize("case", DECODERS)
def test_a_decoder_alone_can_only_steer_and_the_user_is_told(load, tmp_path, capsys, case):
    sae = load(DECODERS[case])
    assert "can steer along W_dec but not compute activations" in capsys.readouterr().err
    for loaded in (sae, load_sae(save_sae(sae, tmp_path / "saved"))):
        assert loaded.W_dec.data.equal(W_DEC) and loaded.W_enc.isnan().all()
        assert loaded.cfg.metadata.decoder_only is True
        with pytest.raises(InputError, match="only a decoder: it can steer along W_dec"):
            codec.encode(loaded, X)


GIVEN = "blocks.2.hook_resid_pre"
OWN_HOOKS = {
    "its own": {"cfg": {"hook_point": HOOK}},
    "its own under the newer name": {"hook_name": HOOK},
    "another name of the same place": {"hook_name": "blocks.1.hook_resid_post"},
    "another library's words": {"hook_point": "layers.1"},
}


@pytest.mark.parametrize("case", OWN_HOOKS)
def test_the_hook_is_the_checkpoints(load, case):
    content = {"state_dict": OWN, **OWN_HOOKS[case]}
    for given in (None, GIVEN):
        named = load(content, said=old.RELU, hook_name=given).cfg.metadata.hook_name
        assert named in ("blocks.1.hook_resid_post", HOOK)


def test_without_a_hook_of_its_own_it_has_the_one_given_or_none(load):
    assert load(OWN, said=old.RELU).cfg.metadata.hook_name is None
    assert load(OWN, said=old.RELU, hook_name=GIVEN).cfg.metadata.hook_name == GIVEN


@pytest.mark.parametrize("case", OWN_HOOKS)
def test_a_given_hook_that_contradicts_the_checkpoints_is_refused(load, case):
    content = {"state_dict": OWN, **OWN_HOOKS[case]}
    with pytest.raises(InputError, match=r"was made for .*, not for blocks\.0\.hook_resid_pre"):
        load(content, said=old.RELU, hook_name="blocks.0.hook_resid_pre")


def test_the_line_says_how_a_checkpoint_was_read(load, capsys):
    load(LINEAR, said=old.RELU | old.ADDED)
    said = capsys.readouterr().err
    assert "a standard SAE, 15 features of 6 dimensions; b_dec is not subtracted" in said
    assert len(said.strip().splitlines()) == 1


def test_the_version_of_a_source_changes_with_its_files(tmp_path):
    file = old.saved(tmp_path / "old/ae.pt", OWN)
    known = source_version(str(file))
    assert known == source_version(str(file.parent)) is not None
    file.with_name("config.json").write_text('{"k": 4, "apply_b_dec_to_input": true}')
    assert source_version(str(file)) != known
    saved = save_sae(load_sae(file), tmp_path / "saved")
    assert source_version(str(saved)) not in (None, known)
    assert source_version("gpt2-small-res-jb") is None
