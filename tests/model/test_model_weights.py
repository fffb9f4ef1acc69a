"""Weights that a checkpoint lacks, or that its architecture has no place for, stop the loading."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from checkpoints_any import random_checkpoint
from safetensors.torch import load_file, save_file

from saelens_steer.errors import InputError
from saelens_steer.model import load, load_model, model_fingerprint, model_provenance, proof


@pytest.fixture
def folder(tmp_path):
    return random_checkpoint("llama3", tmp_path / "llama3")


def _change(folder: Path, change) -> None:
    file = folder / "model.safetensors"
    weights = load_file(file)
    change(weights)
    save_file(weights, file, metadata={"format": "pt"})


LEFT_OVER = [
    "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight",
    "model.layers.0.self_attn.q_proj.bias",
    "model.layers.0.self_attn.q_norm.weight",
    "model.layers.4.mlp.up_proj.weight",
    "score.weight",
]


@pytest.mark.parametrize("key", LEFT_OVER)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_weight_without_a_place_is_refused_by_name(folder, key, dtype):
    _change(folder, lambda weights: weights.update({key: torch.ones(32)}))
    with pytest.raises(InputError, match=f"(does not use|hold) .*{key}") as error:
        load_model(folder, dtype=dtype)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("key", ["model.norm.weight", "model.layers.3.mlp.down_proj.weight"])
def test_a_missing_weight_is_refused_by_name(folder, key):
    _change(folder, lambda weights: weights.pop(key))
    with pytest.raises(InputError, match="lack " + key):
        load_model(folder)


OTHER_PARTS = [
    "vision_tower.patch_embed.weight",
    "model.visual.blocks.0.weight",
    "multi_modal_projector.weight",
    "mtp.layers.0.weight",
]


@pytest.mark.parametrize("key", OTHER_PARTS)
def test_parts_that_no_text_needs_are_left_aside(folder, key):
    _change(folder, lambda weights: weights.update({key: torch.ones(32)}))
    load_model(folder)


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        ("gpt2", "transformer.h.0.attn.bias"),
        ("gptj", "transformer.h.0.attn.masked_bias"),
        ("gpt-neo", "transformer.h.1.attn.attention.bias"),
        ("neox", "gpt_neox.layers.0.attention.masked_bias"),
    ],
)
def test_the_causal_masks_in_old_checkpoints_are_no_weights(tmp_path, kind, key):
    folder = random_checkpoint(kind, tmp_path / kind)
    _change(folder, lambda weights: weights.update({key: torch.ones(1, 1, 8, 8).bool()}))
    load_model(folder)


def test_a_multimodal_checkpoint_of_the_older_layout_is_the_same_text_model(tmp_path):
    folder = random_checkpoint("gemma3-multimodal", tmp_path / "m")
    plain = load_model(folder)

    def older(weights):
        for key in list(weights):
            name = key.replace("model.language_model.", "language_model.model.")
            name = name.removeprefix("model.") if "vision" in name else name
            weights[name] = weights.pop(key)

    _change(folder, older)
    model = load_model(folder)
    assert all(torch.equal(w, model.state_dict()[k]) for k, w in plain.state_dict().items())


@pytest.fixture
def no_memory(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_a_proof_that_takes_long_is_announced_once(folder, no_memory, monkeypatch, capsys):
    monkeypatch.setattr(load, "QUICK", 0)
    said = []
    for _ in range(2):
        load_model(folder)
        said.append(capsys.readouterr().err.count("with transformers (later loads skip this)"))
    assert said == [1, 0]


def test_the_record_says_what_was_proved_and_then_that_it_is_remembered(folder, no_memory):
    for dtype in ("float32", "bfloat16"):
        first, second = (model_provenance(load_model(folder, dtype=dtype)) for _ in range(2))
        assert first["proof"] == proof.WHOLE
        assert second["proof"] == f"{proof.WHOLE}, remembered"
        assert first["parity"] == second["parity"]


@pytest.mark.parametrize("model_class", ["HookedTransformer", "TransformerBridge"])
def test_of_a_large_model_the_first_and_last_layers_are_proved_in_float32(
    folder, no_memory, monkeypatch, model_class
):
    monkeypatch.setattr(proof, "WHOLE_IN_FLOAT32", 0)
    model = load_model(folder, dtype="bfloat16", model_class=model_class)
    assert model_provenance(model)["proof"] == proof.PARTS
    whole = model_provenance(load_model(folder, model_class=model_class))
    assert whole["proof"] == proof.WHOLE


@pytest.mark.parametrize(
    ("kind", "layers"),
    [("llama3", [0, 1, 3]), ("gemma3", [0, 1, 2, 3]), ("olmo3", [0, 1, 2, 3]), ("gpt2", [0, 1, 3])],
)
def test_one_layer_of_each_kind_is_among_them(tmp_path, kind, layers):
    from saelens_steer.model.checkpoint import from_folder

    hf = from_folder("m", random_checkpoint(kind, tmp_path / kind)).read(torch.float32)
    assert proof.layers_to_prove(hf) == layers


@torch.no_grad()
def test_the_last_layer_is_computed_with_its_own_weights_when_only_it_is_kept(tmp_path):
    from saelens_steer.model.checkpoint import from_folder

    hf = from_folder("m", random_checkpoint("qwen3", tmp_path / "m")).read(torch.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(proof, "WHOLE_IN_FLOAT32", 0)
        twin, _ = proof.float32_twin(hf)
    kept = [hf.model.layers[i] for i in (0, 1, 3)]
    for ours, theirs in zip(twin.model.layers, kept, strict=True):
        assert torch.equal(ours.mlp.down_proj.weight, theirs.mlp.down_proj.weight)


def test_another_version_of_this_package_proves_again(folder, no_memory, monkeypatch):
    load_model(folder)
    monkeypatch.setattr("saelens_steer.model.parity.__version__", "another")
    assert model_provenance(load_model(folder))["proof"] == proof.WHOLE
    monkeypatch.setattr("saelens_steer.model.parity._code", lambda: "changed")
    assert model_provenance(load_model(folder))["proof"] == proof.WHOLE


def test_the_settings_of_a_config_that_only_transformers_reads_are_kept(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "pretraining_tp": 2}))
    load_model(folder)


def _pickle(folder: Path, weights: object) -> Path:
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    return folder


def test_pickled_tensors_are_read_where_there_are_no_safetensors(folder):
    plain, weights = load_model(folder), load_file(folder / "model.safetensors")
    model = load_model(_pickle(folder, weights))
    assert all(torch.equal(w, model.state_dict()[k]) for k, w in plain.state_dict().items())


class _Evil:
    def __reduce__(self):
        return Path.touch, (Path(ran),)


ran = ""


def test_code_in_a_pickle_is_never_run(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ran", str(tmp_path / "ran"))
    weights = load_file(folder / "model.safetensors")
    with pytest.raises(InputError, match="pickled weights") as error:
        load_model(_pickle(folder, {**weights, "model.norm.weight": _Evil()}))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "ran").exists()


def _save(folder: Path, weights: dict, form: str) -> None:
    """Write weights in one file, or in two with an index."""
    name = "pytorch_model.bin" if "pickled" in form else "model.safetensors"
    parts = {name: weights}
    if "shards" in form:
        stem, end = name.split(".")
        keys = [sorted(weights)[::2], sorted(weights)[1::2]]
        parts = {f"{stem}-{n}.{end}": {k: weights[k] for k in keys[n]} for n in (0, 1)}
        places = {key: file for file, part in parts.items() for key in part}
        (folder / f"{name}.index.json").write_text(
            json.dumps({"metadata": {}, "weight_map": places})
        )
    for file, part in parts.items():
        if "pickled" in form:
            torch.save(part, folder / file)
        else:
            save_file(part, folder / file, metadata={"format": "pt"})


FORMS = ("whole", "shards", "pickled", "pickled shards")
"""From what transformers prefers to what it reads last."""


@pytest.mark.parametrize(("worse", "better"), [(1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2)])
def test_the_weights_that_are_read_are_those_of_the_fingerprint(folder, worse, better):
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    _save(folder, weights, FORMS[worse])
    first = load_model(folder)
    _save(folder, {k: -w if "lm_head" in k else w for k, w in weights.items()}, FORMS[better])
    second = load_model(folder)
    assert torch.equal(second.W_U, -first.W_U)
    assert model_fingerprint(second) != model_fingerprint(first)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"weight_map": 3}', '{"weight_map": []}'])
def test_a_broken_index_is_named(folder, text):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(text)
    with pytest.raises(InputError, match=r"index\.json is damaged"):
        load_model(folder)


@pytest.mark.parametrize(
    "wrong",
    [
        {"hidden_size": "large"},
        {"hidden_size": 30},
        {"num_hidden_layers": None},
        {"num_attention_heads": 0},
        {"vocab_size": [1]},
        {"hidden_act": "nonsense"},
        {"rms_norm_eps": "small"},
        {"rope_parameters": {"rope_type": "llama3"}},
        {"rope_parameters": {"rope_type": "unknown"}},
    ],
    ids=str,
)
def test_a_config_from_which_no_model_can_be_built_is_called_invalid(folder, wrong):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **wrong}))
    with pytest.raises(InputError, match=r"config\.json is invalid: ") as error:
        load_model(folder)
    assert "\n" not in str(error.value)


def test_weights_under_a_name_of_the_config_are_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    settings = {**config, "transformers_weights": "other.safetensors"}
    (folder / "config.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match="transformers_weights"):
        load_model(folder)
