"""A model from a GGUF file equals the checkpoint that the file was made from."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import LLAMA3_ROPE
from checkpoints_any import random_checkpoint
from gguf_files import Contents, contents_of, rounded
from hugging import hugging_face
from transformers import AutoTokenizer, LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from saelens_steer.model import checkpoint_of, load_model, model_provenance, stop_token_ids
from saelens_steer.model.gguf.header import GgufFile
from saelens_steer.model.gguf.keys import Keys
from saelens_steer.model.gguf.rope import rope_of_file

TEXT = "def add(a, b):\n    return a + b  # 12 and   345 e\u0301\n\n  x"
CLOSE = 1e-4

CHECKPOINTS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama2", {}),
    "llama, untied and grouped": ("llama2", {"num_key_value_heads": 2}),
    "qwen 2.5": ("qwen2", {}),
    "qwen 3": ("qwen3", {}),
    "gemma 2": ("gemma2", {"query_pre_attn_scalar": 16}),
    "gemma 3": (
        "gemma3",
        {"query_pre_attn_scalar": 16, "layer_types": None, "num_hidden_layers": 7},
    ),
    "phi 3": ("phi3", {}),
    "phi 3, partial rotary": ("phi3-partial", {}),
    "gpt-2": ("gpt2", {}),
}


def relative_error(model: Any, hf: Any, length: int = 40) -> float:
    """Of the logits at all positions of random tokens."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(3, hf.config.vocab_size - 8, (2, length), generator=generator)
    with torch.no_grad():
        theirs, ours = hf(tokens).logits, model(tokens)
    return float((ours - theirs).norm() / theirs.norm())


def made_from(architecture: str, folder: Path, **changes: Any) -> tuple[Contents, Any]:
    """What a GGUF file of a random checkpoint holds, and its Hugging Face model."""
    random_checkpoint(architecture, folder, **changes)
    return contents_of(folder), hugging_face(folder)


@pytest.mark.parametrize(
    ("name", "kind"),
    [*((name, "F32") for name in CHECKPOINTS), ("llama", "Q8_0"), ("gemma 3", "Q8_0")],
)
def test_a_model_from_a_file_equals_the_checkpoint_it_was_made_from(
    tmp_path: Path, name: str, kind: str
) -> None:
    architecture, changes = CHECKPOINTS[name]
    contents, hf = made_from(architecture, tmp_path / "hf", **changes)
    hf = hf if kind == "F32" else rounded(hf, kind)
    model = load_model(contents.write(tmp_path / "model.gguf", kind))
    assert relative_error(model, hf) < CLOSE
    prompt = AutoTokenizer.from_pretrained(tmp_path / "hf")(TEXT, return_tensors="pt")
    assert torch.equal(model.to_tokens(TEXT), prompt["input_ids"])
    theirs = hf.generate(**prompt, max_new_tokens=8, do_sample=False, eos_token_id=None)
    ours = model.generate(
        prompt["input_ids"], max_new_tokens=8, do_sample=False, verbose=False, stop_at_eos=False
    )
    assert torch.equal(ours, theirs)


def test_a_file_loads_as_a_bridge_and_in_half_precision(tmp_path: Path) -> None:
    contents, hf = made_from("qwen3", tmp_path / "hf")
    file = contents.write(tmp_path / "model.gguf", "Q8_0")
    bridge = load_model(file, model_class="TransformerBridge")
    assert relative_error(bridge, rounded(hf, "Q8_0")) < CLOSE
    half = load_model(file, dtype="bfloat16")
    assert half.cfg.dtype == torch.bfloat16
    assert model_provenance(half)["proof"] == "the whole model in float32"


@pytest.mark.parametrize(
    ("architecture", "rope", "keys"),
    [
        ("llama2", {"rope_type": "linear", "factor": 4.0}, {"type": "linear", "factor": 4.0}),
        ("qwen2", {"rope_type": "linear", "factor": 2.5}, {"factor": 2.5}),
        (
            "qwen3",
            {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
            {"type": "yarn", "factor": 4.0, "original_context_length": 32},
        ),
        (
            "llama2",
            {
                "rope_type": "yarn",
                "factor": 8.0,
                "beta_fast": 16.0,
                "original_max_position_embeddings": 64,
            },
            {
                "type": "yarn",
                "factor": 8.0,
                "yarn_beta_fast": 16.0,
                "original_context_length": 64,
                "finetuned": True,
            },
        ),
        ("llama2", {"rope_type": "default"}, {"type": "none", "factor": 4.0}),
    ],
)
def test_scaled_rotary_embeddings_are_those_of_the_file(
    tmp_path: Path, architecture: str, rope: dict[str, Any], keys: dict[str, Any]
) -> None:
    rope = {"rope_theta": 10_000.0, **rope}
    contents, hf = made_from(architecture, tmp_path / "hf", rope_parameters=rope)
    arch = contents.keys["general.architecture"]
    stated = {f"{arch}.rope.scaling.{name}": value for name, value in keys.items()}
    model = load_model(contents.but(stated).write(tmp_path / "model.gguf"))
    assert relative_error(model, hf, 100) < CLOSE


def test_linear_scaling_of_gemma_3_spares_the_layers_that_slide(tmp_path: Path) -> None:
    rope = {
        "sliding_attention": {"rope_type": "default", "rope_theta": 5_000.0},
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1_000_000.0},
    }
    changes = {"query_pre_attn_scalar": 16, "rope_parameters": rope, "sliding_window": 7}
    contents, hf = made_from("gemma3", tmp_path / "hf", **changes)
    keys = {
        "gemma3.rope.scaling.type": "linear",
        "gemma3.rope.scaling.factor": 8.0,
        "gemma3.rope.freq_base_swa": 5_000.0,
        "gemma3.attention.sliding_window_pattern": [True, True, False, True],
    }
    model = load_model(contents.but(keys).write(tmp_path / "model.gguf"))
    assert relative_error(model, hf) < CLOSE


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"original_max_position_embeddings": 8192},
        {"factor": 32.0, "original_max_position_embeddings": 8192},
        {"rope_theta": 10_000.0, "low_freq_factor": 2.0, "high_freq_factor": 32.0},
        {"low_freq_factor": 4.0, "high_freq_factor": 4.001},
        {"original_max_position_embeddings": 2},
        {"rope_theta": 100.0, "high_freq_factor": 2.0},
    ],
    ids=["short", "Llama 3.1", "Llama 3.2", "one in part", "none in part", "all", "many in part"],
)
@pytest.mark.parametrize("width", [64, 32, 8])
def test_llama_3_rotary_factors_become_parameters_that_give_the_same_frequencies(
    changes: dict[str, Any], width: int
) -> None:
    rope = {**LLAMA3_ROPE, **changes}
    scaled, factors = frequencies_and_factors(rope, width)
    assert factors.max() > 1.5  # else this would test nothing
    values = {"general.architecture": "llama", "llama.rope.freq_base": rope["rope_theta"]}
    shapes = {"rope_freqs.weight": factors.shape}
    file = GgufFile(Path("model.gguf"), values, shapes, {"rope_freqs.weight": factors})
    ours, _ = frequencies_and_factors(rope_of_file(Keys(file), width), width)
    assert torch.allclose(ours, scaled, rtol=1e-6, atol=0)


def frequencies_and_factors(rope: dict[str, Any], width: int) -> tuple[torch.Tensor, np.ndarray]:
    """transformers' rotary frequencies, and what llama.cpp's converter writes for them."""
    scaled = LlamaRotaryEmbedding(LlamaConfig(head_dim=width, rope_parameters=rope)).inv_freq
    unscaled = rope["rope_theta"] ** (-torch.arange(0, width, 2).double() / width)
    return scaled, (unscaled / scaled).float().numpy()


def test_a_llama_3_from_a_file_equals_its_checkpoint(tmp_path: Path) -> None:
    contents, hf = made_from("llama3", tmp_path / "hf", head_dim=32)
    _, factors = frequencies_and_factors(LLAMA3_ROPE, 32)
    file = contents.but(tensors={"rope_freqs.weight": factors}).write(tmp_path / "model.gguf")
    assert relative_error(load_model(file), hf, 100) < CLOSE


@pytest.mark.parametrize("caps", [(3.0, 2.0), (50.0, 1.5)])
def test_soft_caps_of_gemma_2_are_those_of_the_file(
    tmp_path: Path, caps: tuple[float, float]
) -> None:
    changes = {"attn_logit_softcapping": caps[0], "final_logit_softcapping": caps[1]}
    contents, hf = made_from("gemma2", tmp_path / "hf", query_pre_attn_scalar=16, **changes)
    model = load_model(contents.write(tmp_path / "model.gguf"))
    assert relative_error(model, hf) < CLOSE
    assert model.cfg.output_logits_soft_cap == caps[1]


def test_a_final_cap_of_gemma_3_is_followed(tmp_path: Path) -> None:
    changes = {"query_pre_attn_scalar": 16, "layer_types": None, "final_logit_softcapping": 1.5}
    contents, hf = made_from("gemma3", tmp_path / "hf", **changes)
    keys = {"gemma3.final_logit_softcapping": 1.5}
    assert relative_error(load_model(contents.but(keys).write(tmp_path / "m.gguf")), hf) < CLOSE


def test_a_gemma_3_without_a_window_sees_everything_in_every_layer(tmp_path: Path) -> None:
    full = ["full_attention"] * 4
    changes = {"query_pre_attn_scalar": 16, "layer_types": full, "sliding_window": 4096}
    contents, hf = made_from("gemma3", tmp_path / "hf", **changes)
    file = contents.but({"gemma3.attention.sliding_window": None}).write(tmp_path / "m.gguf")
    assert relative_error(load_model(file), hf) < CLOSE


def test_keys_that_change_nothing_are_accepted(tmp_path: Path) -> None:
    contents, hf = made_from("llama2", tmp_path / "hf")
    keys = {
        "general.file_type": 7,
        "general.some.future.note": "any",
        "quantize.imatrix.file": "any",
        "uploader.note": "any",
        "llama.expert_count": 0,
        "llama.attention.causal": True,
        "llama.attention.sliding_window": 4096,
        "llama.vocab_size": hf.config.vocab_size,
        "llama.feed_forward_length": [64] * 4,
        "llama.attention.scale": 8**-0.5,
        "llama.rope.freq_base": None,  # 10,000
    }
    model = load_model(contents.but(keys).write(tmp_path / "model.gguf"))
    assert relative_error(model, hf) < CLOSE


def test_a_model_from_a_file_is_known_by_the_files_contents(tmp_path: Path) -> None:
    contents, hf = made_from("llama2", tmp_path / "hf")
    file = contents.write(tmp_path / "small.gguf")
    model = load_model(file)
    about = model_provenance(model)
    assert about["fingerprint"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert Path(about["folder"]).name == Path(about["name"]).name == "small.gguf"
    again = checkpoint_of(model)
    for (name, ours), theirs in zip(again.named_parameters(), hf.parameters(), strict=True):
        assert torch.equal(ours, theirs), name
    assert getattr(again.config, "quantization_config", None) is None
    again.save_pretrained(tmp_path / "saved")  # refused while the model counts as quantised


def test_generation_stops_at_each_end_that_the_file_names(tmp_path: Path) -> None:
    contents, _ = made_from("qwen3", tmp_path / "hf")
    keys = {"tokenizer.ggml.eot_token_id": 1, "tokenizer.ggml.eom_token_id": 2}
    model = load_model(contents.but(keys).write(tmp_path / "model.gguf"))
    assert sorted(stop_token_ids(model)) == [1, 2]


def test_files_beside_a_model_are_not_read(tmp_path: Path) -> None:
    contents, hf = made_from("qwen3", tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": "another"}')
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    (tmp_path / "tokenizer.json").write_text("{}")
    model = load_model(contents.write(tmp_path / "model.gguf"))
    assert relative_error(model, hf) < CLOSE
    assert model.tokenizer.chat_template == contents.keys["tokenizer.chat_template"]
