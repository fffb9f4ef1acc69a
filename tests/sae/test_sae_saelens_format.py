"""Laws of SAELens's folders: what its current classes would drop in silence is read or refused."""

import json
from pathlib import Path

import pytest
import torch
from sae_lens import SAE
from sae_lens.registry import SAE_TRAINING_CLASS_REGISTRY, get_sae_class
from safetensors.torch import load_file, save_file

from saelens_steer.errors import InputError
from saelens_steer.sae import codec, load_sae, source_version

HOOK = "blocks.2.hook_resid_pre"
D_IN, D_SAE, FACTOR = 6, 20, 2.5
NEAR = {"atol": 1e-5, "rtol": 1e-5}
TRAINING = {
    "standard": {"l1_coefficient": 0.01},
    "gated": {"l1_coefficient": 0.01},
    "jumprelu": {"l0_coefficient": 0.01},
    "topk": {"k": 4},
    "topk, without decoder norms": {"k": 4, "rescale_acts_by_decoder_norm": False},
    "abstopk": {"k": 4},
    "batchtopk": {"k": 4},
    "matryoshka_batchtopk": {"k": 4, "matryoshka_widths": [8, D_SAE]},
}


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


X = 3 * draw(50, D_IN, seed=30)


def training_sae(case: str, **more):
    kind, config = SAE_TRAINING_CLASS_REGISTRY[case.split(",")[0]]
    sae = kind(config(d_in=D_IN, d_sae=D_SAE, **TRAINING[case], **more))
    for seed, (name, weight) in enumerate(sorted(sae.named_parameters())):
        weight.data = draw(*weight.shape, seed=seed)
        if name == "threshold":
            weight.data = weight.data.abs()
    if hasattr(sae, "topk_threshold"):
        sae.topk_threshold.fill_(1.3)
    sae.cfg.metadata.hook_name = HOOK
    return sae.requires_grad_(False)


def checkpoint(folder: Path, case: str, scaler: dict | None, **more):
    """A checkpoint as SAELens's trainer writes it, and the training SAE."""
    sae = training_sae(case, **more)
    sae.save_model(str(folder))
    save_file({"sparsity": torch.zeros(D_SAE)}, folder / "sparsity.safetensors")
    torch.save({"optimizer": {}}, folder / "trainer_state.pt")
    if scaler is not None:
        (folder / "activation_scaler.json").write_text(json.dumps(scaler))
    return sae


def trained_z(sae, x: torch.Tensor) -> torch.Tensor:
    """What the training SAE computes without its batch: BatchTopK by its running threshold."""
    if not hasattr(sae, "topk_threshold"):
        return sae.encode(x)
    pre = (x - sae.b_dec * sae.cfg.apply_b_dec_to_input) @ sae.W_enc + sae.b_enc
    pre = pre * sae.W_dec.norm(dim=-1)
    return pre.relu() * (pre > sae.topk_threshold)


def equal(sae: SAE, trained, scale: float) -> None:
    z = trained_z(trained, X * scale)
    assert 0 < (z != 0).float().mean() < 1
    torch.testing.assert_close(codec.encode(sae, X), z, **NEAR)
    torch.testing.assert_close(codec.through(sae, X), trained.decode(z) / scale, **NEAR)


@pytest.mark.parametrize("case", TRAINING)
def test_the_running_scale_of_a_checkpoint_is_folded(tmp_path, case):
    scaler = {"scaling_factor": FACTOR, "has_whitening": False}
    mode = "expected_average_only_in"
    trained = checkpoint(tmp_path / "sae", case, scaler, normalize_activations=mode)
    sae = load_sae(tmp_path / "sae")
    assert sae.cfg.normalize_activations == "none" and sae.cfg.metadata.hook_name == HOOK
    equal(sae, trained, FACTOR)


@pytest.mark.parametrize("case", TRAINING)
def test_a_push_of_a_folded_checkpoint_is_what_a_unit_of_z_stands_for(tmp_path, case):
    scaler = {"scaling_factor": FACTOR, "has_whitening": False}
    mode = "expected_average_only_in"
    checkpoint(tmp_path / "sae", case, scaler, normalize_activations=mode)
    sae = load_sae(tmp_path / "sae")
    z = codec.encode(sae, X[:1])
    more = z.clone()
    more[0, 7] += 1
    change = codec.decode(sae, more, X[:1]) - codec.decode(sae, z, X[:1])
    torch.testing.assert_close(change[0], sae.W_dec[7], **NEAR)


@pytest.mark.parametrize("case", TRAINING)
def test_a_checkpoint_without_scaling_is_read_as_it_is(tmp_path, case):
    trained = checkpoint(tmp_path / "sae", case, {"scaling_factor": None, "has_whitening": False})
    equal(load_sae(tmp_path / "sae"), trained, 1.0)
    equal(load_sae(tmp_path / "sae/sae_weights.safetensors"), trained, 1.0)


def test_the_scale_of_an_older_checkpoint_is_in_the_state_of_its_store(tmp_path):
    mode = "expected_average_only_in"
    trained = checkpoint(tmp_path / "sae", "standard", None, normalize_activations=mode)
    state = {"estimated_norm_scaling_factor": torch.tensor(FACTOR), "n_dataset_processed": X[0]}
    save_file(state, tmp_path / "sae/activations_store_state.safetensors")
    equal(load_sae(tmp_path / "sae"), trained, FACTOR)


def test_whitening_is_folded(tmp_path):
    mean, matrix = draw(D_IN, seed=40), draw(D_IN, D_IN, seed=41)
    scaler = {"scaling_factor": None, "has_whitening": True}
    mode = "covariance_whitening"
    trained = checkpoint(tmp_path / "sae", "standard", scaler, normalize_activations=mode)
    tensors = {"mean": mean, "matrix": matrix, "inverse_matrix": matrix.inverse().contiguous()}
    save_file(tensors, tmp_path / "sae/activation_whitening.safetensors")
    white = (X - mean) @ matrix
    z = trained.encode(white)
    sae = load_sae(tmp_path / "sae")
    torch.testing.assert_close(codec.encode(sae, X), z, atol=1e-4, rtol=1e-4)
    wanted = trained.decode(z) @ matrix.inverse() + mean
    torch.testing.assert_close(codec.through(sae, X), wanted, atol=1e-3, rtol=1e-3)


SCALERS = {
    "no file": (
        "expected_average_only_in",
        None,
        "create activation_scaler.json there.*scaling_factor",
    ),
    "no number": ("expected_average_only_in", {"scaling_factor": None}, "has no scale"),
    "no positive number": ("expected_average_only_in", {"scaling_factor": 0.0}, "positive number"),
    "a scale that is not used": ("none", {"scaling_factor": 2.0}, "one of the two is wrong"),
    "no whitening": ("covariance_whitening", {"has_whitening": False}, "holds no activation_white"),
}


@pytest.mark.parametrize("case", SCALERS)
def test_a_missing_or_contradictory_scale_is_refused(tmp_path, case):
    mode, scaler, hint = SCALERS[case]
    checkpoint(tmp_path / "sae", "standard", scaler, normalize_activations=mode)
    with pytest.raises(InputError, match=hint) as refused:
        load_sae(tmp_path / "sae")
    assert "\n" not in str(refused.value)


def test_the_version_of_a_source_changes_with_its_scale(tmp_path):
    checkpoint(tmp_path / "sae", "standard", {"scaling_factor": None})
    known = source_version(str(tmp_path / "sae"))
    (tmp_path / "sae/activation_scaler.json").write_text('{"scaling_factor": 1.0}')
    assert source_version(str(tmp_path / "sae")) not in (None, known)


OLD = {
    "model_name": "gpt2-small",
    "d_in": D_IN,
    "d_sae": D_SAE,
    "dtype": "torch.float32",
    "device": "cpu",
    "hook_point": HOOK,
    "hook_point_layer": 2,
    "hook_point_head_index": None,
    "context_size": 128,
    "normalize_activations": "none",
}
"""cfg.json of SAELens 1 and 2."""
NEWER = {
    **{key: OLD[key] for key in ("model_name", "d_in", "d_sae", "dtype", "normalize_activations")},
    **{"hook_name": HOOK, "hook_layer": 2, "hook_head_index": None, "sae_lens_version": "4.0.0"},
    **{"architecture": "standard", "activation_fn_str": "relu", "apply_b_dec_to_input": True},
    **{"finetuning_scaling_factor": False, "prepend_bos": True, "activation_fn_kwargs": {}},
}
"""The same of SAELens 3 to 5."""
NEWEST = {key: NEWER[key] for key in NEWER if key != "activation_fn_str"}
NEWEST |= {"sae_lens_version": "6.1.0"}
WEIGHTS = {
    "W_enc": draw(D_IN, D_SAE, seed=1),
    "W_dec": draw(D_SAE, D_IN, seed=2),
    "b_enc": draw(D_SAE, seed=3),
    "b_dec": draw(D_IN, seed=4),
}


def old_folder(folder: Path, settings: dict, **more: torch.Tensor) -> Path:
    folder.mkdir()
    (folder / "cfg.json").write_text(json.dumps(settings))
    save_file(WEIGHTS | more, folder / "sae_weights.safetensors")
    save_file({"sparsity": torch.zeros(D_SAE)}, folder / "sparsity.safetensors")
    return folder


def hidden(subtract: bool = True) -> torch.Tensor:
    w = {name: weight.double() for name, weight in WEIGHTS.items()}
    return (X.double() - w["b_dec"] * subtract) @ w["W_enc"] + w["b_enc"]


def reads_as(sae: SAE, z: torch.Tensor, factor: torch.Tensor | float = 1.0) -> None:
    torch.testing.assert_close(codec.encode(sae, X), z.float(), **NEAR)
    rebuilt = (z * factor) @ WEIGHTS["W_dec"].double() + WEIGHTS["b_dec"].double()
    torch.testing.assert_close(codec.through(sae, X), rebuilt.float(), **NEAR)


TOP = hidden().topk(4, dim=-1)
TOPK_Z = torch.zeros_like(hidden()).scatter(-1, TOP.indices, TOP.values.relu())
OLDER_FORMATS = {
    "1": (OLD, hidden().relu()),
    "2, with a switch": (OLD | {"normalize_activations": False}, hidden().relu()),
    "3 to 5": (NEWER, hidden().relu()),
    "b_dec only added": (NEWER | {"apply_b_dec_to_input": False}, hidden(False).relu()),
    "topk": (NEWER | {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 4}}, TOPK_Z),
    "topk, k apart": (NEWER | {"activation_fn_str": "topk", "k": 4}, TOPK_Z),
    "topk, of the first version": (OLD | {"activation_fn": "topk", "k": 4.0}, TOPK_Z),
    "topk, both": (
        NEWER | {"architecture": "topk", "k": 4, "activation_fn_kwargs": {"k": 4}},
        TOPK_Z,
    ),
    "topk in a newer format": (
        NEWEST | {"activation_fn": "topk", "k": 4},
        TOPK_Z,
    ),
    "topk in a newer format, k inside": (
        NEWEST | {"activation_fn": "topk", "activation_fn_kwargs": {"k": 4}},
        TOPK_Z,
    ),
}


@pytest.mark.parametrize("case", OLDER_FORMATS)
def test_older_formats_are_read_as_they_were_meant(tmp_path, case):
    settings, z = OLDER_FORMATS[case]
    sae = load_sae(old_folder(tmp_path / "sae", settings))
    reads_as(sae, z)
    assert sae.cfg.architecture() == ("topk" if "topk" in case else "standard")
    if settings.get("sae_lens_version", "1") < "6":
        assert sae.cfg.metadata.hook_name == HOOK


def test_the_factor_of_a_fine_tuned_sae_is_folded_and_one_of_ones_is_not_missed(tmp_path):
    factor = draw(D_SAE, seed=9).abs()
    used = NEWER | {"finetuning_scaling_factor": True}
    sae = load_sae(old_folder(tmp_path / "sae", used, scaling_factor=factor))
    reads_as(sae, hidden().relu(), factor.double())
    reads_as(
        load_sae(old_folder(tmp_path / "ones", NEWER, scaling_factor=torch.ones(D_SAE))),
        hidden().relu(),
    )
    with pytest.raises(InputError, match="scaling_factor, which cfg"):
        load_sae(old_folder(tmp_path / "unused", NEWER, scaling_factor=factor))


MISREAD = {
    "tanh": (NEWER | {"activation_fn_str": "tanh-relu"}, "activation function tanh-relu"),
    "signed": (
        NEWER | {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 4, "signed": True}},
        "activation function topk .*signed",
    ),
    "no k": (NEWER | {"activation_fn_str": "topk"}, 'holds no k: write "k": NUMBER'),
    "two ks": (
        NEWER | {"activation_fn_str": "topk", "k": 4, "activation_fn_kwargs": {"k": 5}},
        "k: [45] and [45], and k must be one whole number",
    ),
    "two activation functions": (NEWER | {"activation_fn": "topk", "k": 4}, "relu and topk"),
    "half a k": (NEWER | {"activation_fn_str": "topk", "k": 2.5}, "k must be one whole number"),
    "topk of another kind": (
        NEWER | {"architecture": "gated", "activation_fn_str": "topk", "k": 4},
        "architecture gated and activation function topk: remove the wrong one",
    ),
    "a factor that is not used": (NEWER | {"norm_scaling_factor": 2.0}, "norm_scaling_factor: 2.0"),
    "decoder norms that are not used": (
        NEWER | {"rescale_acts_by_decoder_norm": True},
        "rescale_acts_by_decoder_norm: True",
    ),
    "a centre that is not used": (NEWER | {"center_inputs": True}, "center_inputs: True"),
    "no k in the new format": (
        {"architecture": "topk", "d_in": D_IN, "d_sae": D_SAE, "metadata": {}},
        "holds no k",
    ),
    "one head": (OLD | {"hook_point_head_index": 3}, "hook_head_index: 3"),
    "one head in the newer format": (NEWER | {"hook_head_index": 0}, "hook_head_index: 0"),
    "a scale that was never written": (OLD | {"normalize_activations": True}, "has no scale"),
    "a temporal SAE": (NEWER | {"architecture": "temporal"}, "is a temporal SAE, which is not"),
    "an unknown kind": (NEWER | {"architecture": "mine"}, "is a mine SAE, which is not supported"),
}


@pytest.mark.parametrize("case", MISREAD)
def test_what_saelens_would_misread_is_refused(tmp_path, case):
    settings, hint = MISREAD[case]
    with pytest.raises(InputError, match=hint) as refused:
        load_sae(old_folder(tmp_path / "sae", settings))
    assert "\n" not in str(refused.value)


def test_a_kind_that_someone_registers_is_refused_until_it_is_tested(tmp_path, monkeypatch):
    from sae_lens.registry import SAE_CLASS_REGISTRY

    monkeypatch.setitem(SAE_CLASS_REGISTRY, "mine", get_sae_class("standard"))
    with pytest.raises(InputError, match="is a mine SAE, which is not supported; supported: stand"):
        load_sae(old_folder(tmp_path / "sae", NEWER | {"architecture": "mine"}))


def test_a_given_hook_fills_in_and_may_not_contradict(tmp_path):
    folder = old_folder(tmp_path / "sae", NEWER)
    assert load_sae(folder, hook_name="blocks.1.hook_resid_post").cfg.metadata.hook_name == HOOK
    with pytest.raises(InputError, match=r"was made for blocks\.2\.hook_resid_pre, not for"):
        load_sae(folder, hook_name="blocks.0.hook_resid_post")
    without = {key: value for key, value in NEWER.items() if key != "hook_name"}
    open_ = old_folder(tmp_path / "open", without)
    assert load_sae(open_).cfg.metadata.hook_name is None
    assert load_sae(open_, hook_name=HOOK).cfg.metadata.hook_name == HOOK


def test_weights_alone_are_no_sae(tmp_path):
    folder = old_folder(tmp_path / "sae", NEWER)
    (folder / "cfg.json").unlink()
    assert set(load_file(folder / "sae_weights.safetensors")) == set(WEIGHTS)
    for source in (folder, folder / "sae_weights.safetensors"):
        with pytest.raises(InputError, match=r"has no cfg\.json|which kind of SAE it is"):
            load_sae(source)
