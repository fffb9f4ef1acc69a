"""What a loaded model would not follow of a GGUF file is refused in one sentence, by name."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from checkpoints_any import random_checkpoint
from gguf_files import Contents, contents_of, write_file

from saelens_steer.errors import InputError
from saelens_steer.model import load_model
from saelens_steer.model.gguf import from_gguf


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Contents:
    return contents_of(random_checkpoint("llama2", tmp_path_factory.mktemp("llama")))


@pytest.fixture(scope="module")
def gemma2(tmp_path_factory: pytest.TempPathFactory) -> Contents:
    return contents_of(random_checkpoint("gemma2", tmp_path_factory.mktemp("gemma2")))


def refusal(path: Path) -> str:
    """The message with which a file is refused, which is one sentence."""
    with pytest.raises(InputError) as caught:
        from_gguf(str(path), path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rope.scaling.type", "longrope"),
        ("rope.scaling.attn_factor", 1.19),
        ("rope.dimension_count", 4),
        ("rope.dimension_sections", [2, 1, 1, 0]),
        ("rope.freq_base_swa", 5000.0),
        ("rope.scaling.alpha", 1000.0),
        ("attention.sliding_window", 5),
        ("attention.sliding_window_pattern", 2),
        ("attention.value_length", 16),
        ("attention.scale", 0.2),
        ("attention.clamp_kqv", 8.0),
        ("attention.max_alibi_bias", 8.0),
        ("attention.causal", False),
        ("attention.head_count", [4, 4, 4, 2]),
        ("attn_logit_softcapping", 50.0),
        ("final_logit_softcapping", 30.0),
        ("embedding_scale", 12.0),
        ("residual_scale", 0.22),
        ("logit_scale", 16.0),
        ("expert_count", 8),
        ("expert_used_count", 2),
        ("expert_weights_scale", 2.5),
        ("vocab_size", 7),
        ("use_parallel_residual", True),
        ("block_count", 0),
        ("embedding_length", "large"),
        ("tensor_data_layout", "another"),
        ("of_the_future", 1),
    ],
)
def test_a_key_that_the_model_would_not_follow_is_refused(
    tmp_path: Path, llama: Contents, key: str, value: Any
) -> None:
    file = llama.but({f"llama.{key}": value}).write(tmp_path / "model.gguf")
    assert f"llama.{key} = {value}" in refusal(file)


@pytest.mark.parametrize("key", ["rope.scaling.factor", "qwen2.rope.scaling.type", "clip.norm"])
def test_a_key_under_another_name_is_refused_if_it_could_decide_the_arithmetic(
    tmp_path: Path, llama: Contents, key: str
) -> None:
    assert key in refusal(llama.but({key: 4.0}).write(tmp_path / "model.gguf"))


@pytest.mark.parametrize(
    "key",
    [
        "llama.block_count",
        "llama.context_length",
        "llama.attention.head_count_kv",
        "llama.attention.layer_norm_rms_epsilon",
        "llama.feed_forward_length",
    ],
)
def test_a_missing_key_is_named(tmp_path: Path, llama: Contents, key: str) -> None:
    assert key in refusal(llama.but({key: None}).write(tmp_path / "model.gguf"))


@pytest.mark.parametrize(
    "key", ["attn_logit_softcapping", "final_logit_softcapping", "attention.sliding_window"]
)
def test_caps_and_window_of_gemma_2_are_never_assumed(
    tmp_path: Path, gemma2: Contents, key: str
) -> None:
    file = gemma2.but({f"gemma2.{key}": None}).write(tmp_path / "model.gguf")
    assert f"lacks gemma2.{key}" in refusal(file)


def test_a_scale_that_differs_from_the_one_of_the_architecture_is_refused(
    tmp_path: Path, gemma2: Contents
) -> None:
    file = gemma2.but({"gemma2.attention.scale": 24**-0.5}).write(tmp_path / "model.gguf")
    assert "gemma2.attention.scale" in refusal(file)


@pytest.mark.parametrize(
    "name",
    [
        "blk.0.attn_q.lora_a",
        "blk.1.attn_q_norm.weight",
        "blk.0.attn_rot_embd",
        "rope_factors_long.weight",
        "output_norm.bias",
        "cls.weight",
    ],
)
def test_a_tensor_without_a_place_in_the_model_is_named(
    tmp_path: Path, llama: Contents, name: str
) -> None:
    extra = np.ones(8, dtype=np.float32)
    assert name in refusal(llama.but(tensors={name: extra}).write(tmp_path / "model.gguf"))


@pytest.mark.parametrize(
    "name",
    ["token_embd.weight", "output_norm.weight", "blk.2.ffn_up.weight", "blk.3.attn_q.weight"],
)
def test_a_missing_tensor_is_named(tmp_path: Path, llama: Contents, name: str) -> None:
    assert name in refusal(llama.but(tensors={name: None}).write(tmp_path / "model.gguf"))


def test_layers_that_are_missing_or_too_many_are_counted(tmp_path: Path, llama: Contents) -> None:
    fewer = {name: None for name in llama.tensors if name.startswith("blk.3.")}
    assert "4 layers" in refusal(llama.but(tensors=fewer).write(tmp_path / "few.gguf"))
    more = llama.but({"llama.block_count": 3})
    assert "3 layers" in refusal(more.write(tmp_path / "many.gguf"))


def test_a_tensor_of_another_shape_is_named(tmp_path: Path, llama: Contents) -> None:
    narrow = llama.tensors["blk.1.ffn_up.weight"][:-8]
    file = llama.but(tensors={"blk.1.ffn_up.weight": narrow}).write(tmp_path / "model.gguf")
    assert "blk.1.ffn_up.weight" in refusal(file)


@pytest.mark.parametrize(
    "factors", [[1, 2, 1, 8], [1, 1, 1, 0], [0.5, 1, 1, 1], [1, 1, 8], [[1, 1, 2, 8]]]
)
def test_rotary_factors_other_than_llama_3s_are_refused(
    tmp_path: Path, llama: Contents, factors: list[Any]
) -> None:
    tensors = {"rope_freqs.weight": np.array(factors, dtype=np.float32)}
    file = llama.but(tensors=tensors).write(tmp_path / "model.gguf")
    assert "rope_freqs.weight" in refusal(file)


def test_rotary_factors_beside_another_scaling_are_refused(tmp_path: Path, llama: Contents) -> None:
    factors = np.array([1, 1, 1, 8], dtype=np.float32)
    keys = {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 2.0}
    file = llama.but(keys, {"rope_freqs.weight": factors}).write(tmp_path / "model.gguf")
    assert "rope_freqs.weight" in refusal(file)


@pytest.mark.parametrize(
    "architecture", ["gemma", "olmo", "olmo2", "gptneox", "phi2", "opt", "llama4", "rwkv7"]
)
def test_an_architecture_that_cannot_be_read_is_named(tmp_path: Path, architecture: str) -> None:
    file = write_file(tmp_path / "model.gguf", {"general.architecture": architecture}, {})
    assert architecture in refusal(file)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"general.type": "adapter", "adapter.type": "lora"}, "a LoRA adapter without its base"),
        ({"general.type": "mmproj", "general.architecture": "clip"}, "the vision part"),
        ({"general.type": "imatrix"}, "importance matrix"),
        ({"general.type": "vocab"}, "vocabulary without weights"),
        ({"general.architecture": "controlvector"}, "load_vectors"),
        ({"split.count": 3, "split.no": 0}, "one of 3 parts"),
    ],
)
def test_a_file_that_is_no_whole_model_is_refused_by_what_it_is(
    tmp_path: Path, llama: Contents, keys: dict[str, Any], words: str
) -> None:
    assert words in refusal(llama.but(keys).write(tmp_path / "model.gguf"))


@pytest.mark.parametrize("kept", [0, 3, 100, 5_000, -1000])
def test_a_truncated_file_is_called_damaged(tmp_path: Path, llama: Contents, kept: int) -> None:
    whole = llama.write(tmp_path / "whole.gguf").read_bytes()
    (tmp_path / "cut.gguf").write_bytes(whole[:kept])
    assert "damaged" in refusal(tmp_path / "cut.gguf")


@pytest.mark.parametrize("contents", [b"PK\x03\x04 no model", b"GGUF\x63\x00\x00\x00" + bytes(40)])
def test_another_file_is_called_damaged_or_none(tmp_path: Path, contents: bytes) -> None:
    (tmp_path / "other.gguf").write_bytes(contents)
    assert "not a GGUF file" in refusal(tmp_path / "other.gguf")


def test_a_file_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no file .*missing\.gguf"):
        load_model(str(tmp_path / "missing.gguf"))


def test_a_folder_of_files_asks_for_one_of_them(tmp_path: Path, llama: Contents) -> None:
    llama.write(tmp_path / "model.Q8_0.gguf")
    with pytest.raises(InputError, match=r"give one, such as .*model\.Q8_0\.gguf"):
        load_model(str(tmp_path))


def test_without_the_package_the_extra_is_named(
    tmp_path: Path, llama: Contents, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = llama.write(tmp_path / "model.gguf")
    monkeypatch.setitem(sys.modules, "gguf", None)
    assert "saelens-steer[gguf]" in refusal(file)


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("block_count", 0, "not a positive whole number"),
        ("embedding_length", "large", "not a positive whole number"),
        ("context_length", 2.5, "not a positive whole number"),
        ("attention.head_count_kv", [2, 2, 1, 2], "differs between layers"),
        ("feed_forward_length", [64, 48, 64, 64], "differs between layers"),
        ("attention.sliding_window", [5, 7, 5, 7], "differs between layers"),
        ("attention.causal", False, "would be ignored"),
    ],
)
def test_the_reason_for_refusing_a_key_is_the_true_one(
    tmp_path: Path, llama: Contents, key: str, value: Any, why: str
) -> None:
    file = llama.but({f"llama.{key}": value}).write(tmp_path / "model.gguf")
    assert why in refusal(file)


@pytest.mark.parametrize("lost", ["attn_q", "ffn_up", "output_norm"])
def test_a_weight_for_which_gguf_has_no_name_is_named_as_transformers_does(
    tmp_path: Path, llama: Contents, lost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = gguf.TensorNameMap.get_name

    def without(self: Any, key: str, *args: Any) -> str | None:
        found = named(self, key, *args)
        return None if found and found.split(".")[-1] == lost else found

    monkeypatch.setattr(gguf.TensorNameMap, "get_name", without)
    words = refusal(llama.write(tmp_path / "model.gguf"))
    assert "cannot hold the weight model." in words and "None" not in words
