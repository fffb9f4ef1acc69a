"""Which names load which checkpoint, and what is said about those that do not."""

from __future__ import annotations

import copy
import errno
import json
import shutil

import pytest
import torch
from checkpoints import put_in_hub_cache, random_llama, random_qwen3
from checkpoints_any import random_checkpoint
from huggingface_hub import constants
from transformers import AutoTokenizer

from saelens_steer.errors import InputError
from saelens_steer.model import (
    checkpoint,
    find_model,
    load,
    load_model,
    model_fingerprint,
    model_provenance,
    snapshot,
    stop_token_ids,
)
from saelens_steer.model.model_class import is_weightless

INDEX = "model.safetensors.index.json"
REPO = "Qwen/Qwen3-4B-Instruct-2507"
CLASSES = ["HookedTransformer", "TransformerBridge"]


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty hub cache."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture
def copied(random_folder, tmp_path):
    """A copy of the random checkpoint that a test may damage."""
    return shutil.copytree(random_folder, tmp_path / "copied")


def _edit(folder, file="config.json", **changes):
    config = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**config, **changes}))


@pytest.mark.parametrize("model_class", CLASSES)
def test_a_cached_hub_model_loads_offline_with_its_own_rope_theta(hub, tmp_path, model_class):
    rope = {"rope_type": "default", "rope_theta": 5e6}
    folder = random_qwen3(tmp_path / "m", rope_parameters=rope)
    commit = put_in_hub_cache(hub, REPO, folder).name
    model = load_model(REPO, model_class=model_class)
    assert model.cfg.rotary_base == 5e6
    assert model.cfg.model_name == REPO
    assert model_provenance(model)["commit"] == commit
    assert load_model(REPO, revision=commit).cfg.model_name == REPO


@pytest.mark.parametrize("family", ["llama-7b", "Gemma-3-1b", "meta-llama", "t5-bert"])
def test_the_name_of_the_folder_does_not_matter(random_folder, tmp_path, family):
    folder = shutil.copytree(random_folder, tmp_path / family)
    assert load_model(str(folder)).cfg.n_layers == 4


def test_grouped_and_plain_attention_untied_embeddings_and_odd_widths_load(tmp_path):
    variants = [
        {"num_key_value_heads": 4, "tie_word_embeddings": False},
        {"num_hidden_layers": 1, "head_dim": 8, "num_key_value_heads": 1},
    ]
    for i, variant in enumerate(variants):
        load_model(str(random_qwen3(tmp_path / str(i), **variant)))


def test_weights_are_neither_folded_nor_centred(random_model):
    assert random_model.cfg.normalization_type == "RMS"
    assert (random_model.ln_final.w != 1).any()
    assert random_model.W_U.mean(dim=-1).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["tiny_model", "random_model", "random_bridge"])
def test_before_its_weights_are_read_a_model_has_the_hooks_and_settings_of_the_loaded_one(
    name, random_folder, request
):
    loaded = request.getfixturevalue(name)
    folder = "tiny-qwen3" if name == "tiny_model" else str(random_folder)
    found = find_model(folder, model_class=type(loaded).__name__).weightless  # type: ignore[arg-type]
    assert all(weight.is_meta for weight in (*found.parameters(), *found.buffers()))
    assert list(found.hook_dict) == list(loaded.hook_dict)
    assert {k: str(v) for k, v in vars(found.cfg).items()} == {
        k: str(v) for k, v in vars(loaded.cfg).items()
    }
    assert found.tokenizer is not None and loaded.tokenizer is not None
    assert found.tokenizer.get_vocab() == loaded.tokenizer.get_vocab()


def test_a_bridge_that_needs_its_weights_to_be_built_is_loaded(tmp_path):
    folder = random_checkpoint("gpt2", tmp_path / "gpt2")
    found = find_model(str(folder), model_class="TransformerBridge")
    assert found.weightless is found.loaded and not is_weightless(found.loaded)


def test_n_ctx_is_the_models_own_or_as_asked_but_no_more(random_folder, tmp_path):
    assert load_model(str(random_folder)).cfg.n_ctx == 512
    assert load_model(str(random_folder), n_ctx=100).cfg.n_ctx == 100
    long = random_qwen3(tmp_path / "long", max_position_embeddings=40_960)
    assert load_model(str(long)).cfg.n_ctx == 4096
    for bad in (513, 0, -1):
        with pytest.raises(InputError, match="1 to 512"):
            load_model(str(random_folder), n_ctx=bad)


@pytest.mark.parametrize("name", ["random_model", "random_bridge"])
def test_the_tokenizer_pads_left_and_keeps_qwens_meaning(name, request):
    model = request.getfixturevalue(name)
    assert model.tokenizer.padding_side == "left"
    assert model.tokenizer.pad_token == "<|endoftext|>"
    assert model.tokenizer.eos_token == "<|im_end|>"
    assert model.cfg.default_prepend_bos is False
    assert model.to_tokens("Write a Python function").shape == (
        1,
        len(model.tokenizer("Write a Python function").input_ids),
    )
    assert stop_token_ids(model) == [2, 0]


@pytest.mark.parametrize("model_class", CLASSES)
def test_the_tokenizer_given_is_not_changed(random_folder, model_class):
    tokenizer = AutoTokenizer.from_pretrained(random_folder)
    before = copy.deepcopy(tokenizer)
    model = load_model(random_folder, tokenizer=tokenizer, model_class=model_class)
    assert model.tokenizer is not tokenizer
    assert model.tokenizer.bos_token is tokenizer.bos_token is None
    assert tokenizer.padding_side == before.padding_side
    assert tokenizer.special_tokens_map == before.special_tokens_map


def test_a_copy_and_a_hub_snapshot_have_the_fingerprint_of_the_original(
    random_folder, copied, hub, monkeypatch
):
    original = snapshot.snapshot_fingerprint(random_folder)
    assert snapshot.snapshot_fingerprint(copied) == original
    cached = put_in_hub_cache(hub, REPO, random_folder)
    monkeypatch.setattr(snapshot, "_hash_file", lambda *_: pytest.fail("read a blob again"))
    assert snapshot.snapshot_fingerprint(cached) == original


@pytest.mark.parametrize("name", ["chat_template.jinja", "generation_config.json"])
def test_another_template_or_stop_token_is_another_fingerprint(random_folder, tmp_path, name):
    other = shutil.copytree(random_folder, tmp_path / "other")
    text = (other / name).read_text()
    (other / name).write_text(text + " ")
    assert snapshot.snapshot_fingerprint(other) != snapshot.snapshot_fingerprint(random_folder)


def test_other_weights_have_another_fingerprint(random_model, tmp_path):
    other = load_model(str(random_qwen3(tmp_path / "other", seed=1)))
    assert model_fingerprint(random_model) != model_fingerprint(other)


def test_a_model_from_elsewhere_is_fingerprinted_by_its_parameters(random_model, random_bridge):
    assert model_fingerprint(random_model) == model_fingerprint(random_bridge)
    elsewhere = copy.deepcopy(random_model)
    first = model_fingerprint(elsewhere)
    assert first == model_fingerprint(copy.deepcopy(elsewhere))
    elsewhere.W_U.data += 1
    assert model_fingerprint(elsewhere) != first


def _refused(match: str, *args, **kwargs):
    with pytest.raises(InputError, match=match) as error:
        load_model(*args, **kwargs)
    assert "\n" not in str(error.value)


def test_names_that_stand_for_nothing_are_refused(hub, tmp_path):
    _refused("did you mean 'tiny-qwen3'", "tiny-qwen")
    _refused("did you mean 'tiny-qwen3'", "tiny_qwen3")
    _refused("There is no model 'gpt3'", "gpt3")
    _refused("is not cached, and the hub is unreachable", "gpt2")
    _refused(r"pass HookedTransformer.from_pretrained\('gelu-1l'\)", "gelu-1l")
    _refused("There is no model ''", "")
    _refused("There is no folder", str(tmp_path / "absent"))
    _refused("There is no folder", "./absent")
    _refused("is not cached, and the hub is unreachable", REPO)


def test_a_cached_model_without_that_revision_is_refused(hub, random_folder):
    put_in_hub_cache(hub, REPO, random_folder)
    _refused("is not cached", REPO, revision="v2")


def test_a_partly_downloaded_model_is_refused(hub, random_folder):
    (put_in_hub_cache(hub, REPO, random_folder) / "model.safetensors").unlink()
    _refused("no safetensors weights", REPO)


def test_any_other_failure_of_the_hub_is_told_in_one_line(monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("connection reset\nby peer")

    monkeypatch.setattr(snapshot, "snapshot_download", broken)
    _refused("could not be downloaded: connection reset", REPO)


def test_a_full_disk_is_named(monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(snapshot, "snapshot_download", full)
    _refused("The disk is full", REPO)


@pytest.mark.parametrize("dtype", ["bfloat16", torch.bfloat16])
def test_a_dtype_is_a_name_or_torchs_own(random_folder, dtype):
    assert load_model(str(random_folder), dtype=dtype).cfg.dtype == torch.bfloat16


def test_settings_that_do_not_exist_are_refused(random_folder):
    with pytest.raises(InputError, match="HookedTransformer, TransformerBridge"):
        load._one_of(load.BUILDERS, "Hooked", "model class")
    _refused("dtype 'int8'", str(random_folder), dtype="int8")
    _refused("device 'abacus'", str(random_folder), device="abacus")


def test_incomplete_folders_are_refused(copied, tmp_path):
    _refused("no config.json", str(tmp_path))
    (copied / "model.safetensors").rename(copied / "pytorch_model.bin")
    _refused("pickled weights", str(copied))
    (copied / INDEX).write_text(json.dumps({"weight_map": {"a": "1.safetensors"}}))
    _refused("lacks 1.safetensors", str(copied))


@pytest.mark.parametrize("name", ["../{}", "{}", "away/{}", "a/../../{}", "", "..", "a\0b"])
def test_weights_outside_the_folder_are_refused_unread(copied, tmp_path, name, monkeypatch):
    weights = tmp_path / "weights.safetensors"
    (copied / "model.safetensors").rename(weights)
    (copied / "away").symlink_to(tmp_path)
    named = name.format(weights if name == "{}" else weights.name)
    (copied / INDEX).write_text(json.dumps({"weight_map": {"a": named}}))
    monkeypatch.setattr(snapshot, "_hash_file", lambda *_: pytest.fail("read"))
    _refused("is not a path inside .*copied", str(copied))


def test_damaged_files_are_refused(copied):
    weights = copied / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    _refused("cannot be read", str(copied))
    (copied / "config.json").write_text("[]")
    _refused("not a model config", str(copied))


def test_missing_weights_are_refused_and_not_made_up(copied):
    _edit(copied, num_hidden_layers=5, layer_types=["full_attention"] * 5)
    _refused("lack model.layers.4", str(copied))


def test_a_folder_without_tokenizer_is_refused_and_none_is_made_up(copied):
    (copied / "tokenizer.json").write_text("{")
    _refused("tokenizer in .* cannot be read", str(copied))
    (copied / "tokenizer.json").unlink()
    _refused("There is no tokenizer", str(copied))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"architectures": ["MambaForCausalLM"]}, "MambaForCausalLM is not supported"),
        ({"architectures": None}, "none is not supported"),
        ({"attention_bias": True}, "lack model.layers.0.self_attn.k_proj.bias"),
        ({"quantization_config": {"quant_method": "fp8"}}, "quantized"),
    ],
)
def test_unsupported_checkpoints_are_refused(copied, changes, match):
    _edit(copied, **changes)
    _refused(match, str(copied))


@pytest.fixture
def own_code(tmp_path, monkeypatch):
    """Give a checkpoint code of its own, and say yes to every question; what ran and was asked."""
    seen = tmp_path / "seen"
    monkeypatch.setattr("builtins.input", lambda *_: seen.open("a").write("asked\n") and "y")

    def give(folder, config=(), tokenizer=()):
        code = f"open({str(seen)!r}, 'a').write('ran')\nfrom transformers import *\n"
        classes = {"C": "LlamaConfig", "M": "LlamaForCausalLM", "T": "PreTrainedTokenizerFast"}
        code += "".join(f"class {name}({base}): pass\n" for name, base in classes.items())
        (folder / "own.py").write_text(code)
        _edit(folder, **dict(config))
        _edit(folder, "tokenizer_config.json", **dict(tokenizer))
        return folder

    yield give
    assert not seen.exists(), seen.read_text()


MAPPED = {"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M"}
TOKENIZER = {"auto_map": {"AutoTokenizer": ["own.T", None]}, "trust_remote_code": True}
NEEDED = {
    "a config": {"config": {"model_type": "own", "auto_map": MAPPED}},
    "a model": {"config": {"model_type": "own", "auto_map": {"AutoModelForCausalLM": "own.M"}}},
    "an architecture": {
        "config": {"model_type": "own", "auto_map": MAPPED, "architectures": ["OwnForCausalLM"]}
    },
    "another repository's": {
        "config": {"model_type": "own", "auto_map": {"AutoConfig": "someone/else--own.C"}}
    },
    "no type": {"config": {"model_type": None, "auto_map": MAPPED}},
    "a type that writes no text": {
        "config": {
            "model_type": "siglip_text_model",
            "hidden_act": "gelu_pytorch_tanh",
            "auto_map": {"AutoModelForCausalLM": "own.M"},
        }
    },
    "a tokenizer": {"tokenizer": {**TOKENIZER, "tokenizer_class": "OwnTokenizer"}},
    "a fast tokenizer": {
        "tokenizer": {"auto_map": {"AutoTokenizer": [None, "own.T"]}, "tokenizer_class": "Own"}
    },
    "a tokenizer as lists were": {
        "tokenizer": {"auto_map": ["own.T", None], "tokenizer_class": "Own"}
    },
}


@pytest.mark.parametrize("case", NEEDED)
def test_a_checkpoint_that_needs_code_of_its_own_is_refused_without_a_question(
    hub, tmp_path, own_code, case
):
    folder = own_code(random_llama(tmp_path / "m"), **NEEDED[case])
    _refused(r"model .*/m needs its own Python code, which is never run here", str(folder))
    put_in_hub_cache(hub, REPO, folder)
    _refused(f"model {REPO} needs its own Python code, which is never run here", REPO)


BROUGHT = {
    "a config and a model": {"config": {"auto_map": MAPPED}},
    "a tokenizer": {"tokenizer": {**TOKENIZER, "tokenizer_class": "PreTrainedTokenizerFast"}},
    "a tokenizer that is read again": {
        "tokenizer": {**TOKENIZER, "tokenizer_class": "ByT5Tokenizer", "bos_token": "<s>"}
    },
}


@pytest.mark.parametrize("case", BROUGHT)
@pytest.mark.parametrize("model_class", CLASSES)
def test_code_that_transformers_has_classes_for_is_left_alone(
    tmp_path, own_code, case, model_class
):
    folder = own_code(random_llama(tmp_path / "m"), **BROUGHT[case])
    (folder / "custom_generate").mkdir()
    shutil.copy(folder / "own.py", folder / "custom_generate/generate.py")
    model = load_model(str(folder), model_class=model_class)
    assert type(model.tokenizer).__module__.startswith("transformers.")
    load.checkpoint_of(model)


def test_the_hugging_face_model_is_freed(random_folder, monkeypatch):
    import gc
    import weakref

    kept = []
    read = checkpoint.read_weights
    monkeypatch.setattr(
        checkpoint, "read_weights", lambda *a: (kept.append(weakref.ref(h := read(*a))), h)[1]
    )
    model = load_model(str(random_folder))
    gc.collect()
    assert model.cfg.n_layers == 4
    assert kept[0]() is None
