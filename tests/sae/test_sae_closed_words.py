"""Laws of what decides a foreign SAE's arithmetic: known whole words, stated once, or refused."""

import json
from pathlib import Path

import legacy_files as old
import pytest
import torch
from legacy_files import B_DEC, D_IN, D_SAE, LINEAR, MEAN, OWN, X

from saelens_steer.errors import InputError
from saelens_steer.sae import codec, load_sae

NEAR = {"atol": 1e-4, "rtol": 1e-4}
RELU = old.RELU
PRE = {"pre_bias": B_DEC, **old.without(LINEAR, "decoder.bias")}


def refused(folder: Path, content: dict, said: dict, hint: str, name: str = "sae.pt") -> str:
    """The sentence with which a checkpoint is refused; checks that it matches."""
    with pytest.raises(InputError, match=hint) as found:
        old.load(folder, content, name, said=said)
    assert "\n" not in str(found.value)
    return str(found.value)


def advised(sentence: str) -> list[str]:
    """The names that the sentence says to ignore."""
    return json.loads("[" + sentence.split('"ignore": [')[1].split("]")[0] + "]")


def computes(sae, expected: tuple) -> None:
    torch.testing.assert_close(codec.encode(sae, X), expected[0].float(), **NEAR)
    torch.testing.assert_close(codec.through(sae, X), expected[1].float(), **NEAR)


@pytest.mark.parametrize(
    "said",
    [
        {"activation_fn": "relu6"},
        {"architecture": "prelu"},
        {"activation": "softrelu"},
        {"activation": "squaredrelu"},
        {"activation_fn": "absolute_topk", "k": 4},
        {"sae_type": "lorsa_standard"},
        {"architecture": "BatchTopKSAE-after-TopK", "k": 4},
    ],
)
def test_a_word_that_contains_a_known_kind_is_not_that_kind(tmp_path, said):
    refused(tmp_path, OWN, old.SUBTRACTED | said, "can be converted")


@pytest.mark.parametrize(
    "said",
    [
        {"architecture": "jumprelu", "activation": "topk", "k": 4, "threshold": 0.3},
        {"dict_class": "BatchTopKSAE", "activation_fn": "topk", "k": 4, "threshold": 0.3},
        {"sae_type": "gated", "activation": "jumprelu", "threshold": 0.3},
    ],
)
def test_two_kinds_are_refused_and_the_advice_settles_them(tmp_path, said):
    advice = refused(tmp_path, OWN, old.SUBTRACTED | said, "different kinds of SAE")
    ignored = advised(advice)
    if said.get("sae_type") != "gated":
        old.load(tmp_path, OWN, said=old.SUBTRACTED | said | {"ignore": ignored})


def test_dictionary_learnings_trainer_decides_if_no_class_is_named(tmp_path):
    content = old.without(LINEAR, "decoder.bias") | {"bias": B_DEC, "k": torch.tensor(4)}
    for trainer, kind in (("TopKTrainer", "topk"), ("BatchTopKTrainer", "jumprelu")):
        said = {"trainer": {"trainer_class": trainer}, "threshold": 0.7}
        assert old.load(tmp_path, content, said=said).cfg.architecture() == kind
    refused(tmp_path, content, {"trainer_class": "NewTrainer"}, "trainer_class: NewTrainer")


@pytest.mark.parametrize("folder", ["target_l0_4", "l0-4", "run_L0_4"])
def test_no_name_but_qwen_scopes_says_k(tmp_path, folder):
    said = {"architecture": "topk", **old.SUBTRACTED}
    refused(tmp_path, OWN, said, 'holds no k: write "k": NUMBER', f"{folder}/sae.pt")
    assert old.load(tmp_path, OWN, f"{folder}/sae.pt", said=said | {"k": 4}).cfg.k == 4


def test_two_numbers_of_active_features_are_refused(tmp_path):
    for said in ({"k": 4, "top_k": 3}, {"trainer": {"topk": 4}, "k": 5}, {"topk": 2, "top_k": 3}):
        refused(tmp_path, OWN, {"architecture": "topk", **said, **old.SUBTRACTED}, "if the first")


# Scaling and centring that nothing reads

SCALED = {
    "a factor beside": ({"scaling_factor": torch.tensor(3.0)}, {}),
    "a number beside": ({"norm_factor": 2.0}, {}),
    "a mean beside": ({"data_mean": torch.ones(D_IN)}, {}),
    "a standard deviation beside": ({"data_std": 2 * torch.ones(D_IN)}, {}),
    "statistics in a dict": ({"normalizer": {"shift": torch.ones(D_IN)}}, {}),
    "input_scale": ({}, {"input_scale": 3.0}),
    "scaling_factor": ({}, {"trainer": {"activation_scaling_factor": 2}}),
    "normalize_acts": ({}, {"normalize_acts": True}),
    "center_inputs": ({}, {"center_inputs": "true"}),
    "layernorm": ({}, {"layernorm": 2}),
    "standardize": ({}, {"preprocessing": {"standardize": True}}),
    "a word": ({}, {"input_normalisation": "rms"}),
    "whiten": ({}, {"whiten": True}),
    "a mean in a file": ({}, {"data_mean": [1.0] * D_IN}),
    "unit_norm, of what": ({}, {"unit_norm": True}),
    "scale, which way": ({"scale": 7.5}, {}),
    "norm, which way": ({"norm": torch.tensor(7.5)}, {}),
    "std, of what": ({"std": MEAN.abs() + 1}, {}),
    "activation_scale": ({}, {"activation_scale": 2.0}),
}


@pytest.mark.parametrize("case", SCALED)
def test_scaling_that_nothing_reads_is_refused_unless_it_is_said_to_change_nothing(tmp_path, case):
    beside, said = SCALED[case]
    content = {"state_dict": OWN, **beside}
    advice = refused(tmp_path, content, RELU | said, r'"ignore": \[')
    ignored = advised(advice)
    computes(old.load(tmp_path, content, said=RELU | said | {"ignore": ignored}), old.reference(X))


HARMLESS = {
    "of the decoder": {"normalize_decoder": True, "decoder": {"unit_norm": True}},
    "of the decoder's start": {"decoder_init_norm": 0.1, "mse_loss_normalization": "dense_batch"},
    "of gradients and penalties": {"max_grad_norm": 0.5, "noise_scale": 0.2, "lp_norm": 2},
    "of the model": {"lm": {"normalization": "rms", "act_fn": "gelu"}, "model": {"d_model": 99}},
    "of the optimiser": {"optimizer": {"norm": "x", "scale": 3}, "lr_scheduler": {"scale": 2}},
    "switched off": {"normalize_acts": False, "input_scale": 1.0, "center": 0, "scaling": "none"},
}


@pytest.mark.parametrize("case", HARMLESS)
def test_settings_of_other_things_than_the_input_change_nothing(tmp_path, case):
    computes(old.load(tmp_path, OWN, said=RELU | HARMLESS[case]), old.reference(X))


@pytest.mark.parametrize(
    "said",
    [
        {"normalize_activations": "none", "normalization": "layer_norm"},
        {"normalize": "unit", "normalize_activations": "layer_norm"},
        {"input_unit_norm": True, "normalize_activations": False},
        {"per_token_norm": False, "normalize": "per_token"},
    ],
)
def test_two_normalisations_are_refused(tmp_path, said):
    refused(tmp_path, OWN, RELU | said, "contradict each other")


def test_unit_norm_counts_once_the_mode_is_stated(tmp_path):
    said = RELU | {"unit_norm": True, "normalize_activations": "none"}
    computes(old.load(tmp_path, OWN, said=said), old.reference(X))


@pytest.mark.parametrize("given", [7.5, [7.5], [2.0, 3.0, 4.0, 5.0, 6.0, 7.0]])
def test_the_line_says_what_was_folded_and_a_config_may_give_vectors(tmp_path, capsys, given):
    said = RELU | {"activation_norm": given, "activation_mean": MEAN.tolist()}
    scale = torch.as_tensor(given, dtype=torch.float64)
    computes(old.load(tmp_path, OWN, said=said), old.reference(X, mean=MEAN, scale=scale))
    size = "s = 7.5" if scale.numel() == 1 else "s from 2 to 7"
    assert f"; it reads (x − μ)/s, folded into its weights ({size})" in capsys.readouterr().err


UNKNOWN = {
    "step_size": torch.rand(D_SAE),
    "n_scale": torch.rand(D_SAE),
    "temperature": torch.tensor(3.0),
    "alpha": torch.tensor(1.0),
    "num_gain": torch.rand(D_IN),
    "active_bias": torch.rand(D_SAE),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_a_tensor_that_may_be_a_parameter_is_refused(tmp_path, name):
    content = OWN | {name: UNKNOWN[name]}
    refused(tmp_path, content, RELU, f"holds {name} ")
    said = RELU | {"ignore": [name]}
    computes(old.load(tmp_path, content, said=said), old.reference(X))


def test_counters_of_training_are_no_parameters(tmp_path):
    counts = {
        "num_batches_not_active": torch.ones(D_SAE),
        "n_steps": torch.tensor(3),
        "fired_count": torch.ones(D_SAE, dtype=torch.long),
        "step": torch.tensor(7.0),
    }
    computes(old.load(tmp_path, OWN | counts, said=RELU), old.reference(X))


# Whether b_dec is subtracted from the input


@pytest.mark.parametrize("word", [0, 1, "true", "False", True])
def test_switches_are_read_as_configs_write_them(tmp_path, word):
    subtract = str(word).lower() in ("1", "true")
    said = {"architecture": "relu", "apply_b_dec_to_input": word}
    computes(old.load(tmp_path, OWN, said=said), old.reference(X, subtract=subtract))


BIASES = {
    "no truth value": (OWN, {"apply_b_dec_to_input": "maybe"}, "must be true or false"),
    "two keys": (
        OWN,
        {"apply_b_dec_to_input": 1, "apply_decoder_bias_to_pre_encoder": 0},
        "contradict each other about",
    ),
    "its class": (
        OWN,
        {"apply_b_dec_to_input": 0, "dict_class": "AutoEncoder"},
        "contradict each other about",
    ),
    "its name": (PRE, {"apply_b_dec_to_input": False}, "contradict each other about"),
    "another bias": (
        PRE | {"b_dec": B_DEC + 1},
        {"apply_b_dec_to_input": True},
        "contradict each other about",
    ),
}


@pytest.mark.parametrize("case", BIASES)
def test_contradictions_about_the_bias_are_refused_and_the_advice_settles_them(tmp_path, case):
    content, said, hint = BIASES[case]
    said = {"architecture": "relu"} | said
    advice = refused(tmp_path, content, said, hint)
    if case == "no truth value":
        return
    ignored = advised(advice)
    sae = old.load(tmp_path, content, said=said | {"ignore": ignored})
    z, rebuilt = old.reference(X, subtract=case != "two keys")
    computes(sae, (z, rebuilt + (case == "another bias")))


@pytest.mark.parametrize("key", ["signed", "skip_connection", "transcode"])
def test_a_setting_of_another_model_counts_however_it_is_written(tmp_path, key):
    for value in (1, "true", True):
        refused(tmp_path, OWN, RELU | {key: value}, key)


# Transcoders, and the hook

TRANSCODERS = {
    "in_and_out": ("sae.pt", {"submodule_name": "layers.3.mlp", "io": "in_and_out"}),
    "hook_mode": ("layers.3.mlp/sae.pt", {"hook_mode": "transcode"}),
    "a repository": ("qwen3-4b-transcoders/layer_5.pt", {}),
    "a folder": ("clt_16/layer_5.pt", {}),
    "a norm": ("layers.3.input_layernorm/sae.pt", {}),
    "a norm's hook": ("sae.pt", {"hook_point_in": "blocks.3.ln2.hook_normalized"}),
    "an MLP's input": ("sae.pt", {"hf_hook_point_in": "model.layers.3.mlp.input"}),
}


@pytest.mark.parametrize("case", TRANSCODERS)
def test_what_may_be_a_transcoder_is_no_sae_unless_it_is_said_to_be_one(tmp_path, case):
    name, said = TRANSCODERS[case]
    refused(tmp_path, OWN, RELU | said, "transcoder", name)
    if {"io", "hook_mode"} & set(said):
        return
    computes(
        old.load(tmp_path, OWN, name, said=RELU | said | {"transcoder": False}), old.reference(X)
    )


INPUTS = {
    "layers.3": "blocks.3.hook_resid_pre",
    "model.layers.3.mlp.down_proj": "blocks.3.mlp.hook_post",
    "h.3.attn.c_proj": "blocks.3.attn.hook_z",
    "layers.3.mlp": None,
    "resid_post_layer_3": None,
    "blocks.3.hook_mlp_out": "blocks.3.hook_mlp_out",
}


@pytest.mark.parametrize("word", INPUTS)
def test_the_input_side_of_a_module_is_not_its_output(tmp_path, word):
    said = RELU | {"trainer": {"submodule_name": word}, "buffer": {"io": "in"}}
    about = old.load(tmp_path, OWN, said=said).cfg.metadata
    assert about.hook_name == INPUTS[word]
    assert about.hf_hook_name in (None, f"{word}.input")
    if "hook" not in word and "resid" not in word:
        named = old.load(tmp_path, OWN, f"{word}/sae.pt", said=RELU | {"hook_mode": "input"})
        assert named.cfg.metadata.hook_name == INPUTS[word]


UNREAD = {
    "an unknown word beats names": ("layers.3/ae.pt", {"submodule_name": "model.tower.7.x"}),
    "a vision tower": ("ae.pt", {"submodule_name": "vision_tower.encoder.layers.3"}),
    "a vision folder": ("vision_tower/resid_post_layer_3/ae.pt", {}),
    "an encoder's block": ("ae.pt", {"hook_point": "encoder.block.3"}),
    "a hook that does not exist": ("ae.pt", {"hook_name": "blocks.8.hook_resid_pre_24576"}),
    "an unknown side": ("ae.pt", {"submodule_name": "layers.3", "io": "sideways"}),
}


@pytest.mark.parametrize("case", UNREAD)
def test_a_hook_in_unknown_words_stays_open_for_the_user_to_give(tmp_path, case):
    name, said = UNREAD[case]
    assert old.load(tmp_path, OWN, name, said=RELU | said).cfg.metadata.hook_name is None
    given = "blocks.8.hook_resid_pre"
    sae = old.load(tmp_path, OWN, name, said=RELU | said, hook_name=given)
    assert sae.cfg.metadata.hook_name == given


def test_a_folder_may_name_the_hook_and_the_width(tmp_path):
    sae = old.load(tmp_path, OWN, "blocks.8.hook_resid_pre_24576/ae.pt", said=RELU)
    assert sae.cfg.metadata.hook_name == "blocks.8.hook_resid_pre"


ELSEWHERE = {
    "two hooks": {"hook_name": "blocks.8.hook_resid_pre", "hook_point": "blocks.9.hook_resid_pre"},
    "two places": {"hook_point": "blocks.8.hook_mlp_out", "submodule_name": "resid_post_layer_8"},
    "a layer": {"submodule_name": "resid_post_layer_8", "layer": 7},
    "a hook's layer": {"hook_name": "blocks.8.hook_mlp_out", "hook_layer": 7},
    "a place and a hook": {"site": "mlp_out", "layer": 8, "hook_name": "blocks.8.hook_resid_pre"},
}


@pytest.mark.parametrize("case", ELSEWHERE)
def test_contradictory_hooks_are_refused_and_the_advice_settles_them(tmp_path, case):
    said = RELU | ELSEWHERE[case]
    advice = refused(tmp_path, OWN, said, "which disagree about the hook")
    ignored = advised(advice)
    assert old.load(tmp_path, OWN, said=said | {"ignore": ignored}).cfg.metadata.hook_name


def test_two_names_of_one_place_agree(tmp_path):
    said = {"hook_name": "blocks.8.hook_resid_pre", "submodule_name": "layers.7", "layer": 8}
    found = old.load(tmp_path, OWN, said=RELU | said).cfg.metadata.hook_name
    assert found == "blocks.8.hook_resid_pre"


@pytest.mark.parametrize("said", [{"layer": -1}, {"hook_layer": -2}, {"layer": 3, "hook_layer": 4}])
def test_a_layer_is_one_number_counted_from_0(tmp_path, said):
    refused(tmp_path, OWN, RELU | {"hook_point": "resid_post", **said}, "counted from 0")


def test_files_in_hidden_sections_are_not_read_as_the_saes(tmp_path):
    """`unit` of the decoder, or a kind of the language model, is not the SAE's."""
    said = {"decoder": {"normalize": "unit"}, "model": {"architecture": "gpt2"}}
    computes(load_sae(old.beside(old.saved(tmp_path / "a.pt", OWN), RELU | said)), old.reference(X))
