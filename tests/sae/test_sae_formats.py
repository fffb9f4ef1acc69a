"""Laws of other libraries' formats: each is read as its library computes, by formula."""

import json
from pathlib import Path

import legacy_files as old
import numpy as np
import pytest
import torch
from legacy_files import B_DEC, B_ENC, D_IN, D_SAE, LINEAR, OWN, W_DEC, W_ENC, X
from safetensors.torch import save_file

from saelens_steer.errors import InputError
from saelens_steer.sae import codec, load_sae

NEAR = {"atol": 1e-4, "rtol": 1e-4}
THRESHOLD = old.draw(D_SAE, seed=8).abs()


def written(file: Path, content: dict, **settings: dict) -> Path:
    """A checkpoint, and settings files named by the keywords (`config` → config.json)."""
    for name, setting in settings.items():
        place = file.parent.parent if name.startswith("above_") else file.parent
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{name.removeprefix('above_')}.json").write_text(json.dumps(setting))
    if file.suffix == ".npz":
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file, **{name: tensor.numpy() for name, tensor in content.items()})
        return file
    return old.saved(file, content)


def same(sae, expected: tuple, x=X) -> None:
    z, rebuilt = expected
    assert (z != 0).float().mean() > 0
    torch.testing.assert_close(codec.encode(sae, x), z.float(), **NEAR)
    torch.testing.assert_close(codec.through(sae, x), rebuilt.float(), **NEAR)


# dictionary_learning: trainer_N/ae.pt and config.json

ENCODER = {"encoder.weight": W_ENC.T, "encoder.bias": B_ENC, "decoder.weight": W_DEC.T}
COUNTED = {"k": torch.tensor(4), "threshold": torch.tensor(0.7)}
GATES = {name: old.draw(D_SAE, seed=20 + i) for i, name in enumerate(("r", "gate", "mag"))}
GATED = {
    **{"encoder.weight": W_ENC.T, "decoder.weight": W_DEC.T, "decoder_bias": B_DEC},
    **{"r_mag": GATES["r"], "gate_bias": GATES["gate"], "mag_bias": GATES["mag"]},
}
TRAINERS = {
    ("StandardTrainer", "AutoEncoder"): (ENCODER | {"bias": B_DEC}, True, old.relu),
    ("PAnnealTrainer", "AutoEncoder"): (ENCODER | {"bias": B_DEC}, True, old.relu),
    ("StandardTrainerAprilUpdate", "AutoEncoder"): (ENCODER | {"bias": B_DEC}, True, old.relu),
    ("StandardTrainer", "AutoEncoderNew"): (LINEAR, False, old.relu),
    ("TopKTrainer", "AutoEncoderTopK"): (ENCODER | {"b_dec": B_DEC} | COUNTED, True, old.top(4)),
    ("BatchTopKTrainer", "BatchTopKSAE"): (
        ENCODER | {"b_dec": B_DEC} | COUNTED,
        True,
        old.jump(0.7),
    ),
    ("MatryoshkaBatchTopKTrainer", "MatryoshkaBatchTopKSAE"): (
        OWN | COUNTED | {"group_sizes": torch.tensor([5, 10])},
        True,
        old.jump(0.7),
    ),
    ("JumpReluTrainer", "JumpReluAutoEncoder"): (
        OWN | {"threshold": THRESHOLD},
        False,
        lambda hidden: hidden.clamp_min(0) * (hidden > THRESHOLD),
    ),
}


def trainer(trainer_class: str, dict_class: str, **more) -> dict:
    own = {
        **{"trainer_class": trainer_class, "dict_class": dict_class, "lr": 1e-4, "steps": 100},
        **{"activation_dim": D_IN, "dict_size": D_SAE, "layer": 8, "lm_name": "x/pythia-70m"},
        **{"wandb_name": "SAE", "submodule_name": "resid_post_layer_8", "warmup_steps": 10},
        **({"k": 4} if "TopK" in dict_class else {}),
    }
    return {"trainer": own | more, "buffer": {"d_submodule": D_IN, "ctx_len": 128}}


@pytest.mark.parametrize("names", TRAINERS)
def test_every_trainer_of_dictionary_learning_is_read(tmp_path, names):
    content, subtract, act = TRAINERS[names]
    file = written(tmp_path / "trainer_0/ae.pt", content, config=trainer(*names))
    expected = old.reference(X, subtract=subtract, act=act)
    for source in (file, file.parent):
        sae = load_sae(source)
        same(sae, expected)
        assert sae.cfg.metadata.hook_name == "blocks.8.hook_resid_post"
    step = written(tmp_path / "trainer_0/checkpoints/ae_100.pt", content)
    same(load_sae(step), expected)


@pytest.mark.parametrize("trainer_class", ["GatedSAETrainer", "GatedAnnealTrainer"])
def test_a_gated_sae_of_dictionary_learning_is_read(tmp_path, trainer_class):
    settings = trainer(trainer_class, "GatedAutoEncoder")
    sae = load_sae(written(tmp_path / "ae.pt", GATED, config=settings))
    inner = (X - B_DEC).double() @ W_ENC.double()
    open_ = (inner + GATES["gate"]) > 0
    z = open_ * (GATES["r"].double().exp() * inner + GATES["mag"]).clamp_min(0)
    same(sae, (z, z @ W_DEC.double() + B_DEC))
    assert sae.cfg.architecture() == "gated"


WITHOUT_RULE = {
    "crosscoder": ("CrossCoder", OWN, "dict_class: CrossCoder"),
    "identity": ("IdentityDict", OWN, "dict_class: IdentityDict"),
    "an unset threshold": (
        "BatchTopKSAE",
        OWN | {"k": torch.tensor(4), "threshold": torch.tensor(-1.0)},
        'holds no threshold: write "threshold": NUMBER',
    ),
}


@pytest.mark.parametrize("case", WITHOUT_RULE)
def test_what_dictionary_learning_leaves_open_is_refused(tmp_path, case):
    name, content, hint = WITHOUT_RULE[case]
    file = written(tmp_path / "ae.pt", content, config=trainer("Trainer", name))
    with pytest.raises(InputError, match=hint):
        load_sae(file)


def test_a_threshold_that_is_written_into_the_config_is_used(tmp_path):
    content = OWN | {"k": torch.tensor(4)}
    config = trainer("BatchTopKTrainer", "BatchTopKSAE") | {"threshold": 0.9}
    same(
        load_sae(written(tmp_path / "ae.pt", content, config=config)),
        old.reference(X, act=old.jump(0.9)),
    )


# sparsify, and EleutherAI's sae before it: a folder named by its hook, sae.safetensors and cfg.json

SPARSE = {"encoder.weight": W_ENC.T, "encoder.bias": B_ENC, "W_dec": W_DEC, "b_dec": B_DEC}
SPARSIFY = {
    **{"activation": "topk", "expansion_factor": 32, "normalize_decoder": True, "num_latents": 15},
    **{"k": 4, "multi_topk": False, "skip_connection": False, "transcode": False, "d_in": D_IN},
}
ELEUTHER = {
    **{"expansion_factor": 32, "normalize_decoder": True, "num_latents": 0, "k": 4, "d_in": D_IN},
    **{"signed": False},
}
FOLDERS = {
    "layers.3": "blocks.3.hook_resid_post",
    "layers.13.mlp": "blocks.13.hook_mlp_out",
    "h.2": "blocks.2.hook_resid_post",
    "h.2.attn": "blocks.2.hook_attn_out",
    "layers.0.self_attn": "blocks.0.hook_attn_out",
    "layers.3/seed1": "blocks.3.hook_resid_post",
    "embed_tokens": None,
}


@pytest.mark.parametrize("settings", [SPARSIFY, ELEUTHER, SPARSIFY | {"normalize_decoder": False}])
@pytest.mark.parametrize("folder", FOLDERS)
def test_sparsify_and_its_forerunner_are_read(tmp_path, folder, settings):
    file = written(tmp_path / "run" / folder / "sae.safetensors", SPARSE, cfg=settings)
    run = {"sae": settings, "hookpoints": ["layers.3"], "model": "x/llama", "optimizer": "signum"}
    (tmp_path / "run/config.json").write_text(json.dumps(run))
    sae = load_sae(file.parent)
    same(sae, old.reference(X, act=old.top(4)))
    assert sae.cfg.metadata.hook_name == FOLDERS[folder]


OTHER_SPARSE = {
    "groupmax": SPARSIFY | {"activation": "groupmax"},
    "a transcoder": SPARSIFY | {"transcode": True},
    "a skip connection": SPARSIFY | {"skip_connection": True},
    "signed": ELEUTHER | {"signed": True},
    "a lookup": SPARSIFY | {"gram_lookup": True},
}


@pytest.mark.parametrize("case", OTHER_SPARSE)
def test_other_kinds_of_sparsify_are_refused_by_name(tmp_path, case):
    name = "layers.3/sae.safetensors"
    file = written(tmp_path / name, SPARSE, cfg=OTHER_SPARSE[case])
    with pytest.raises(InputError, match=r"groupmax|transcode|skip_connection|signed|gram_lookup"):
        load_sae(file)


# Gemma Scope 1 (.npz) and 2 (params.safetensors)

PARAMS = OWN | {"threshold": THRESHOLD}
SMALL = {name.lower(): tensor for name, tensor in PARAMS.items()}
JUMP = old.reference(X, subtract=False, act=lambda h: h.clamp_min(0) * (h > THRESHOLD))
SCOPE = {
    "gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82": "blocks.12.hook_resid_post",
    "gemma-scope-2b-pt-mlp/layer_3/width_16k/average_l0_9": "blocks.3.hook_mlp_out",
    "gemma-scope-9b-pt-att/layer_0/width_16k/average_l0_12": "blocks.0.attn.hook_z",
    "models--google--gemma-scope-2b-pt-res/snapshots/0123/layer_5/width_1m/average_l0_9": (
        "blocks.5.hook_resid_post"
    ),
    "somewhere/else": None,
}


@pytest.mark.parametrize("folder", SCOPE)
def test_gemma_scope_1_is_read(tmp_path, folder):
    file = written(tmp_path / folder / "params.npz", PARAMS)
    for source in (file, file.parent):
        sae = load_sae(source)
        same(sae, JUMP)
        assert sae.cfg.metadata.hook_name == SCOPE[folder]


def test_an_npz_file_with_objects_is_refused_and_runs_no_code(tmp_path):
    made = tmp_path / "made"
    trap = np.array([old.Trap(made)], dtype=object)
    np.savez(tmp_path / "params.npz", W_dec=W_DEC.numpy(), trap=trap)
    with pytest.raises(InputError, match=r"cannot read .*params\.npz"):
        load_sae(tmp_path / "params.npz")
    assert not made.exists()


SCOPE_2 = {
    "resid_post/layer_12_width_16k_l0_small": ("model.layers.12.output", "hook_resid_post"),
    "mlp_out_all/layer_3_width_16k_l0_big": (
        "model.layers.3.post_feedforward_layernorm.output",
        "hook_mlp_out",
    ),
    "attn_out/layer_0_width_1m_l0_medium": (
        "model.layers.0.self_attn.o_proj.input",
        "attn.hook_z",
    ),
}


@pytest.mark.parametrize("with_config", [True, False])
@pytest.mark.parametrize("folder", SCOPE_2)
def test_gemma_scope_2_is_read_with_and_without_its_config(tmp_path, folder, with_config):
    word, place = SCOPE_2[folder]
    config = {"architecture": "jump_relu", "model_name": "x", "hf_hook_point_in": word}
    settings = {"config": config} if with_config else {}
    file = written(tmp_path / "google" / folder / "params.safetensors", SMALL, **settings)
    sae = load_sae(file.parent, d_model=None if "attn" in folder else D_IN)
    same(sae, JUMP)
    layer = folder.split("layer_")[1].split("_")[0]
    assert sae.cfg.metadata.hook_name == f"blocks.{layer}.{place}"
    if with_config:
        assert sae.cfg.metadata.hf_hook_name == word


def test_an_sae_of_another_width_than_the_models_is_read_at_hook_z(tmp_path):
    config = {"architecture": "jump_relu", "hf_hook_point_in": SCOPE_2[[*SCOPE_2][2]][0]}
    file = written(tmp_path / "x/params.safetensors", SMALL, config=config)
    assert load_sae(file, d_model=D_IN + 1).cfg.d_in == D_IN


IN, OUT = "pre_feedforward_layernorm.output", "post_feedforward_layernorm.output"
TRANSCODERS = {
    "hooks": {
        "architecture": "jump_relu",
        "affine_connection": False,
        "hf_hook_point_in": f"model.layers.1.{IN}",
        "hf_hook_point_out": f"model.layers.1.{OUT}",
    },
    "an affine connection": {"architecture": "jump_relu", "affine_connection": True},
    "TransformerLens's hooks": {
        "architecture": "jumprelu",
        "apply_b_dec_to_input": False,
        "hook_name": "blocks.1.hook_resid_mid",
        "hook_name_out": "blocks.1.hook_mlp_out",
    },
    "the name": {"architecture": "jumprelu_transcoder"},
    "Llama Scope": {
        **{"act_fn": "jumprelu", "hook_point_in": "blocks.1.ln2.hook_normalized"},
        **{"hook_point_out": "blocks.1.hook_mlp_out", "norm_activation": "inference"},
    },
}


@pytest.mark.parametrize("case", TRANSCODERS)
def test_a_transcoder_is_not_taken_for_an_sae(tmp_path, case):
    file = written(tmp_path / "x/params.safetensors", SMALL, config=TRANSCODERS[case])
    with pytest.raises(InputError, match=r"transcoder|affine_connection"):
        load_sae(file)


def test_a_transcoders_folder_without_config_is_refused_too(tmp_path):
    for folder in ("transcoder_all/layer_1_width_16k_l0_big", "clt/width_262k_l0_big"):
        content = SMALL if "all" in folder else SMALL | {"w_dec": W_DEC[:, None].repeat(1, 3, 1)}
        file = written(tmp_path / folder / "params.safetensors", content)
        with pytest.raises(InputError, match="transcoder"):
            load_sae(file)


# Llama Scope, in both its homes

NORM, JUMPS = 20.0, 1.5
LLAMA = {
    **{"d_model": D_IN, "d_sae": D_SAE, "expansion_factor": 8, "top_k": 50, "dtype": "bfloat16"},
    **{"hook_point_in": "blocks.15.hook_resid_post", "use_decoder_bias": True},
    **{"hook_point_out": "blocks.15.hook_resid_post", "act_fn": "jumprelu"},
    **{"jump_relu_threshold": JUMPS, "norm_activation": "dataset-wise"},
    **{"dataset_average_activation_norm": {"in": NORM, "out": NORM}},
    **{"apply_decoder_bias_to_pre_encoder": False, "use_glu_encoder": False},
    **{"sparsity_include_decoder_norm": False},
}
SCALE = NORM / D_IN**0.5


def llama(act, subtract: bool = False, scale=SCALE) -> tuple:
    return old.reference(X, subtract=subtract, act=act, scale=scale)


LLAMA_CASES = {
    "as published": ({}, llama(old.jump(JUMPS / SCALE))),
    "b_dec subtracted": (
        {"apply_decoder_bias_to_pre_encoder": True},
        llama(old.jump(JUMPS / SCALE), True),
    ),
    "topk": ({"act_fn": "topk", "top_k": 4, "jump_relu_threshold": 0.0}, llama(old.top(4))),
    "relu": ({"act_fn": "relu", "jump_relu_threshold": 0.0}, llama(old.relu)),
    "already scaled": (
        {"norm_activation": "inference"},
        llama(old.jump(JUMPS), scale=1.0),
    ),
    "per token": (
        {"norm_activation": "token-wise", "act_fn": "relu", "jump_relu_threshold": 0.0},
        llama(old.relu, scale=X.double().norm(dim=-1, keepdim=True) / D_IN**0.5),
    ),
}


@pytest.mark.parametrize("case", LLAMA_CASES)
def test_llama_scope_is_read_by_the_settings_one_folder_above(tmp_path, case):
    changes, expected = LLAMA_CASES[case]
    file = tmp_path / "Llama3_1-8B-Base-L15R-8x/checkpoints/final.safetensors"
    written(file, LINEAR, above_hyperparams=LLAMA | changes)
    for source in (file, file.parent):
        sae = load_sae(source)
        same(sae, expected)
        assert sae.cfg.metadata.hook_name == "blocks.15.hook_resid_post"


def test_a_config_beside_llama_scope_adds_to_the_settings_above(tmp_path):
    above = {key: value for key, value in LLAMA.items() if key != "act_fn"}
    file = tmp_path / "L15R/checkpoints/final.safetensors"
    written(file, LINEAR, above_hyperparams=above, config={"act_fn": "jumprelu"})
    same(load_sae(file), LLAMA_CASES["as published"][1])


def test_thresholds_may_count_decoder_norms(tmp_path):
    settings = LLAMA | {"sparsity_include_decoder_norm": True}
    file = tmp_path / "L15R/checkpoints/final.safetensors"
    sae = load_sae(written(file, LINEAR, above_hyperparams=settings))
    norms = W_DEC.double().norm(dim=-1)
    hidden = (X.double() / SCALE) @ W_ENC.double() + B_ENC
    z = hidden * (hidden * norms > JUMPS / SCALE)
    same(sae, (z * norms, (z @ W_DEC.double() + B_DEC) * SCALE))


@pytest.mark.parametrize("home", ["config", "tensors"])
def test_llama_scope_of_r1_is_read_from_its_own_home(tmp_path, home):
    settings = {key: LLAMA[key] for key in LLAMA if key not in ("jump_relu_threshold", "d_sae")}
    content = LINEAR | {"log_jumprelu_threshold": THRESHOLD.log()}
    if home == "tensors":
        settings.pop("dataset_average_activation_norm")
        name = "dataset_average_activation_norm.blocks.15.hook_resid_post"
        content = content | {name: torch.tensor(NORM)}
    file = tmp_path / "400M-Slimpajama-400M-OpenR1-Math-220k/L15R/sae_weights.safetensors"
    written(file, content, config=settings)
    for source in (file, file.parent):
        sae = load_sae(source)
        same(sae, llama(lambda hidden: hidden * (hidden > THRESHOLD)))
        assert sae.cfg.metadata.hook_name == "blocks.15.hook_resid_post"


LLAMA_OPEN = {
    "no settings": (None, "which kind of SAE it is"),
    "no norm": ({"dataset_average_activation_norm": {}}, "dataset-wise, but holds neither"),
    "per batch": ({"norm_activation": "batch-wise"}, "batch-wise, which is unknown"),
    "a gated encoder": ({"use_glu_encoder": True}, "use_glu_encoder: true"),
    "batchtopk without a threshold": (
        {"act_fn": "batchtopk", "jump_relu_threshold": 0.0},
        "holds no threshold",
    ),
    "no use of its bias": (
        {"apply_decoder_bias_to_pre_encoder": None},
        'write "apply_b_dec_to_input": true or false',
    ),
}


@pytest.mark.parametrize("case", LLAMA_OPEN)
def test_what_llama_scope_leaves_open_is_asked_for(tmp_path, case):
    changes, hint = LLAMA_OPEN[case]
    file = tmp_path / "L15R/checkpoints/final.safetensors"
    written(file, LINEAR, **({} if changes is None else {"above_hyperparams": LLAMA | changes}))
    with pytest.raises(InputError, match=hint):
        load_sae(file)


# Qwen-Scope: the repository's name has width and k; the matrices are transposed

WIDE = {
    "W_enc": old.draw(1024, D_IN, seed=1),
    "W_dec": old.draw(D_IN, 1024, seed=2),
    "b_enc": old.draw(1024, seed=3),
    "b_dec": B_DEC,
}
QWEN = {
    "SAE-Res-Qwen3-1.7B-Base-W1K-L0_50": 50,
    "SAE-Res-Qwen3.5-27B-W1K-L0_100": 100,
    "models--Qwen--SAE-Res-Qwen3-8B-Base-W1K-L0_10/snapshots/0123456789": 10,
}


@pytest.mark.parametrize("folder", QWEN)
def test_qwen_scope_is_read_by_its_repositorys_name(tmp_path, folder):
    file = old.saved(tmp_path / folder / "layer7.sae.pt", WIDE)
    sae = load_sae(file)
    hidden = X.double() @ WIDE["W_enc"].T.double() + WIDE["b_enc"]
    z = old.top(QWEN[folder])(hidden)
    same(sae, (z, z @ WIDE["W_dec"].T.double() + B_DEC))
    assert sae.cfg.metadata.hook_name == "blocks.7.hook_resid_post"


def test_qwen_scope_without_its_name_is_asked_for_kind_k_and_bias(tmp_path):
    file = old.saved(tmp_path / "saes/layer7.sae.pt", WIDE)
    said = {}
    for more, hint in (
        ({}, "which kind of SAE it is"),
        ({"architecture": "topk"}, 'holds no k: write "k": NUMBER'),
        ({"k": 50}, r'b_dec is also subtracted .* write "apply_b_dec_to_input"'),
    ):
        said |= more
        old.beside(file, said)
        with pytest.raises(InputError, match=hint):
            load_sae(file)
    old.beside(file, said | {"apply_b_dec_to_input": False})
    z = old.top(50)(X.double() @ WIDE["W_enc"].T.double() + WIDE["b_enc"])
    same(load_sae(file), (z, z @ WIDE["W_dec"].T.double() + B_DEC))


def test_qwen_scope_of_another_width_than_its_name_says_is_refused(tmp_path):
    file = old.saved(tmp_path / "SAE-Res-Qwen3-8B-Base-W2K-L0_10/layer7.sae.pt", WIDE)
    with pytest.raises(InputError, match="says d_sae = 2048"):
        load_sae(file)


# OpenAI's sparse_autoencoder

OPENAI = {
    **{"pre_bias": B_DEC, "latent_bias": B_ENC, "encoder.weight": W_ENC.T},
    **{"decoder.weight": W_DEC.T, "stats_last_nonzero": torch.zeros(D_SAE, dtype=torch.long)},
    "latents_activation_frequency": torch.ones(D_SAE),
    "latents_mean_square": torch.zeros(D_SAE),
}
TOPK = {"activation": "TopK", "activation_state_dict": {"k": 4, "postact_fn": "ReLU"}}


def layer_normed(act) -> tuple:
    mean = X.mean(-1, keepdim=True)
    std = (X - mean).std(-1, keepdim=True)
    z, rebuilt = old.reference((X - mean) / (std + 1e-5), act=act)
    return z, rebuilt * std + mean


def test_openais_relu_saes_are_read_without_a_layer_norm(tmp_path):
    file = tmp_path / "resid_delta_mlp/autoencoders/5.pt"
    sae = load_sae(old.saved(file, OPENAI | {"activation": "ReLU", "activation_state_dict": {}}))
    same(sae, old.reference(X))
    assert sae.cfg.metadata.hook_name == "blocks.5.hook_mlp_out"


PLACES = {
    "resid_post_mlp_v5_32k": "hook_resid_post",
    "resid_post_attn_v5_32k": "hook_resid_mid",
    "resid_delta_attn_v5_128k": "hook_attn_out",
    "resid_delta_mlp_v5_128k": "hook_mlp_out",
}


@pytest.mark.parametrize("folder", PLACES)
def test_openais_topk_saes_normalise_their_input(tmp_path, folder):
    file = tmp_path / folder / "autoencoders/8.pt"
    sae = load_sae(old.saved(file, OPENAI | TOPK))
    same(sae, layer_normed(old.top(4)))
    assert sae.cfg.metadata.hook_name == f"blocks.8.{PLACES[folder]}"


ALIKE = {
    "no activation": old.without(OPENAI, "latents_mean_square") | {"k": 4},
    "weights alone": {k: v for k, v in OPENAI.items() if "latents" not in k and "stats" not in k},
    "no statistics": {**{k: OPENAI[k] for k in [*OPENAI][:4]}, **TOPK},
}


@pytest.mark.parametrize("case", ALIKE)
def test_what_resembles_openais_topk_saes_is_asked_whether_it_normalises(tmp_path, case):
    file = old.saved(tmp_path / "sae.pt", ALIKE[case])
    said = {"architecture": "topk", "k": 4}
    old.beside(file, said)
    with pytest.raises(InputError, match=r'write "normalize_activations": "layer_norm" or "none"'):
        load_sae(file)
    old.beside(file, said | {"normalize_activations": "layer_norm"})
    same(load_sae(file), layer_normed(old.top(4)))
    old.beside(file, said | {"normalize_activations": "none"})
    same(load_sae(file), old.reference(X, act=old.top(4)))


def test_openais_topk_without_relu_is_refused(tmp_path):
    content = OPENAI | TOPK | {"activation_state_dict": {"k": 4, "postact_fn": "Identity"}}
    with pytest.raises(InputError, match="postact_fn: Identity"):
        load_sae(old.saved(tmp_path / "8.pt", content))


def test_location_and_layer_may_stand_in_the_settings(tmp_path):
    file = written(
        tmp_path / "sae.pt", OPENAI | TOPK, config={"location": "resid_post_attn", "layer": 3}
    )
    assert load_sae(file).cfg.metadata.hook_name == "blocks.3.hook_resid_mid"


# What no format says

BARE = {
    "SAELens's names": OWN,
    "nn.Linear": LINEAR,
    "a threshold": OWN | {"threshold": THRESHOLD},
    "k": OWN | {"k": 4},
    "dictionary_learning's bias": ENCODER | {"bias": B_DEC},
    "Goodfire": {
        **{"encoder_linear.weight": W_ENC.T, "encoder_linear.bias": B_ENC},
        **{"decoder_linear.weight": W_DEC.T, "decoder_linear.bias": B_DEC},
    },
}


@pytest.mark.parametrize("case", BARE)
def test_a_bare_file_is_never_guessed_at_and_the_advice_leads_to_an_answer(tmp_path, case):
    file = old.saved(tmp_path / "layer_3/sae.pt", BARE[case])
    with pytest.raises(InputError, match=r"write .* into a config\.json beside it"):
        load_sae(file)
    for line in ({"architecture": "standard"}, {"apply_b_dec_to_input": True}):
        kind = {} if case in ("a threshold", "k") and "architecture" in line else line
        config = file.with_name("config.json")
        known = json.loads(config.read_text()) if config.is_file() else {}
        old.beside(file, known | kind)
    act = {"a threshold": old.jump(THRESHOLD), "k": old.top(4)}.get(case, old.relu)
    same(load_sae(file), old.reference(X, act=act))


UNKNOWN = {
    "gelu": {"activation": "gelu"},
    "softplus": {"activation_fn": "softplus", "k": 4},
    "lorsa": {"sae_type": "lorsa"},
    "a contradiction": {"architecture": "standard", "threshold": 0.3},
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_an_unknown_or_contradictory_kind_is_refused(tmp_path, case):
    file = old.beside(old.saved(tmp_path / "sae.pt", OWN), UNKNOWN[case] | old.SUBTRACTED)
    with pytest.raises(InputError, match=r"can be converted|one of the two is wrong"):
        load_sae(file)


LAYERS_OF_A_CLT = {f"{name}_3": tensor for name, tensor in OWN.items()}
TEMPORAL = {"D": W_DEC, "E": W_ENC, "b": B_DEC, "attn_layers.0.k_ctx.weight": W_DEC + 1}


def test_parts_of_larger_models_are_refused_by_name(tmp_path):
    for content, hint in ((LAYERS_OF_A_CLT, "cross-layer transcoder"), (TEMPORAL, "temporal SAE")):
        file = tmp_path / "x.safetensors"
        save_file({name: tensor.contiguous() for name, tensor in content.items()}, file)
        with pytest.raises(InputError, match=hint):
            load_sae(file)


NAMED = {
    "resid_post_layer_4/sae.pt": "blocks.4.hook_resid_post",
    "blocks.4.hook_resid_mid/sae.pt": "blocks.4.hook_resid_mid",
    "blocks.4.hook_mlp_out.pt": "blocks.4.hook_mlp_out",
    "layer_4/attn_out/sae.pt": "blocks.4.hook_attn_out",
    "layers.4.mlp/sae.pt": "blocks.4.hook_mlp_out",
    "layer_4/sae.pt": None,
    "mlp_out_runs/2024/layer_4/sae.pt": None,
    "resid/layer_4/sae.pt": None,
}


@pytest.mark.parametrize("name", NAMED)
def test_names_of_files_and_folders_say_the_hook_if_they_say_all_of_it(tmp_path, name):
    sae = load_sae(old.saved(tmp_path / name, OWN | old.RELU))
    assert sae.cfg.metadata.hook_name == NAMED[name]


def test_a_models_config_above_is_not_an_saes(tmp_path):
    file = old.saved(tmp_path / "model/saes/sae.pt", OWN | {"k": 4, **old.SUBTRACTED})
    model = {"model_type": "opt", "d_model": 999, "activation_function": "relu"}
    (tmp_path / "model/config.json").write_text(json.dumps(model))
    same(load_sae(file), old.reference(X, act=old.top(4)))
