"""Checkpoints of each family under the names and in the spellings they have on the hub."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from checkpoints import GEMMA_LINEAR, put_in_hub_cache, random_gemma3, random_llama, random_qwen2
from hugging import hugging_face, last_logits
from huggingface_hub import constants
from model_batches import left_padded, rows

from saelens_steer.errors import InputError
from saelens_steer.model import generate, last_token_logits, load_model
from saelens_steer.model.names import hub_ids

CLASSES = ["HookedTransformer", "TransformerBridge"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """One random checkpoint of each family."""
    root = tmp_path_factory.mktemp("names")
    return {
        "llama": random_llama(root / "llama"),
        "gemma3": random_gemma3(root / "gemma3", rope_parameters=GEMMA_LINEAR),
        "qwen2": random_qwen2(root / "qwen2"),
    }


@pytest.mark.parametrize(
    ("name", "hub_id"),
    [
        ("Llama-3.1-8B-Instruct", "meta-llama/Llama-3.1-8B-Instruct"),
        ("Meta-Llama-3-8B", "meta-llama/Meta-Llama-3-8B"),
        ("Qwen2.5-7B-Instruct", "Qwen/Qwen2.5-7B-Instruct"),
        ("gpt-oss-20b", "openai/gpt-oss-20b"),
    ],
)
def test_a_name_without_its_owner_as_in_an_saes_metadata_is_known(name, hub_id):
    assert hub_ids(name) == [hub_id]
    assert hub_ids(f"someone/{name}") == [f"someone/{name}"]


@torch.no_grad()
@pytest.mark.parametrize("model_class", CLASSES)
@pytest.mark.parametrize(
    ("repo", "family"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", "llama"),
        ("google/gemma-3-1b-it", "gemma3"),
        ("Qwen/Qwen2.5-0.5B", "qwen2"),
    ],
)
def test_a_hub_name_that_transformer_lens_knows_loads_the_checkpoint_and_not_its_table(
    folders, tmp_path, monkeypatch, repo, family, model_class
):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    put_in_hub_cache(tmp_path / "hub", repo, folders[family])
    model = load_model(repo, model_class=model_class)
    assert (model.cfg.model_name, model.cfg.n_layers, model.cfg.d_model) == (repo, 4, 32)
    tokens, mask = left_padded(rows())
    theirs = last_logits(hugging_face(folders[family]), tokens, mask)
    assert (last_token_logits(model, tokens, mask) - theirs).abs().max() <= 1e-4
    assert generate(model, tokens, mask, 2).shape == (4, 2)


OLDER = {
    "llama": {
        "rope_theta": 500_000.0,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        },
    },
    "gemma3": {
        "rope_theta": 1_000_000.0,
        "rope_local_base_freq": 10_000.0,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
    },
    "qwen2": {"rope_theta": 1_000_000.0, "rope_scaling": None},
}


@torch.no_grad()
@pytest.mark.parametrize("family", OLDER)
def test_the_spelling_of_older_configs_loads_the_same_model(folders, tmp_path, family):
    older = shutil.copytree(folders[family], tmp_path / "older")
    config = json.loads((older / "config.json").read_text())
    del config["rope_parameters"]
    (older / "config.json").write_text(json.dumps({**config, **OLDER[family]}))
    tokens, mask = left_padded(rows())
    ours, theirs = (
        last_token_logits(load_model(str(f)), tokens, mask) for f in (older, folders[family])
    )
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("model_class", CLASSES)
@pytest.mark.parametrize("family", ["llama", "gemma3", "qwen2"])
def test_a_text_begins_with_bos_once_where_the_tokenizer_has_one(folders, family, model_class):
    model = load_model(str(folders[family]), model_class=model_class)
    bos = None if family == "qwen2" else 3
    assert model.cfg.default_prepend_bos is (bos is not None)
    ids = model.to_tokens("the sum of two numbers")[0].tolist()
    assert (ids[0] == bos) is (bos is not None)
    assert 3 not in ids[1:]
    assert model.tokenizer.padding_side == "left"


YARN = {
    "rope_type": "yarn",
    "rope_theta": 1e6,
    "factor": 4.0,
    "original_max_position_embeddings": 16,
}
DYNAMIC = {**YARN, "rope_type": "dynamic"}
LINEAR = {"rope_type": "linear", "rope_theta": 1e6, "factor": 4.0}
BOTH_KINDS_LLAMA3 = {
    **GEMMA_LINEAR,
    "full_attention": {
        **GEMMA_LINEAR["full_attention"],
        "rope_type": "llama3",
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    },
}


def _changed(folders, tmp_path, family, changes):
    folder = shutil.copytree(folders[family], tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    return folder


@torch.no_grad()
@pytest.mark.parametrize(
    ("family", "changes", "model_class"),
    [
        ("llama", {"rope_parameters": YARN}, "HookedTransformer"),
        ("qwen2", {"rope_parameters": YARN}, "HookedTransformer"),
        ("qwen2", {"rope_parameters": LINEAR}, "HookedTransformer"),
        ("llama", {"rope_parameters": DYNAMIC}, "TransformerBridge"),
        ("gemma3", {"rope_parameters": BOTH_KINDS_LLAMA3}, "TransformerBridge"),
        ("qwen2", {"hidden_act": "laplace"}, "TransformerBridge"),
    ],
)
def test_a_variant_is_computed_in_the_class_that_can(
    folders, tmp_path, family, changes, model_class
):
    folder = _changed(folders, tmp_path, family, changes)
    model = load_model(folder)
    assert type(model).__name__ == model_class
    tokens, mask = left_padded(rows())
    plain, changed = (last_logits(hugging_face(f), tokens, mask) for f in (folders[family], folder))
    assert (last_token_logits(model, tokens, mask) - changed).abs().max() <= 1e-4
    assert (plain - changed).abs().max() > 1e-3 or changes.get("rope_parameters") is DYNAMIC


@pytest.mark.parametrize(
    ("family", "changes", "match"),
    [
        ("llama", {"attention_bias": True}, "lack model.layers.0.self_attn.k_proj.bias"),
        ("llama", {"mlp_bias": True}, "lack model.layers.0.mlp.down_proj.bias"),
        ("gemma3", {"attention_bias": True}, "lack model.layers.0.self_attn.k_proj.bias"),
        ("gemma3", {"use_bidirectional_attention": True}, "bidirectional attention"),
        ("gemma3", {"architectures": ["Gemma3ForConditionalGeneration"]}, "is not supported"),
        ("qwen2", {"architectures": ["Qwen2MoeForCausalLM"]}, "LlamaForCausalLM"),
        ("qwen2", {"architectures": ["Qwen2ForSequenceClassification"]}, "is not supported"),
    ],
)
def test_what_would_be_dropped_is_refused_in_one_sentence(
    folders, tmp_path, family, changes, match
):
    folder = _changed(folders, tmp_path, family, changes)
    with pytest.raises(InputError, match=match) as error:
        load_model(str(folder))
    assert "\n" not in str(error.value)
