"""A LoRA adapter is merged into the base that it names, or refused; never ignored."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import random_qwen3
from checkpoints_any import random_checkpoint
from hugging import hugging_face
from lora_files import with_peft, write_adapter
from safetensors.torch import load_file, save_file

from saelens_steer.errors import InputError
from saelens_steer.model import checkpoint_of, load_model, model_fingerprint, model_provenance

CLOSE = 1e-4


def added_by_hand(hf: Any, folder: Path, scale: float) -> Any:
    """The base with scale · B A added to the values of each layer."""
    weights = load_file(folder / "adapter_model.safetensors")
    for layer, block in enumerate(hf.model.layers):
        place = f"base_model.model.model.layers.{layer}.self_attn.v_proj.lora_"
        change = weights[f"{place}B.weight"] @ weights[f"{place}A.weight"]
        block.self_attn.v_proj.weight.data += scale * change
    return hf


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_qwen3(tmp_path_factory.mktemp("base"))


TOKENS = torch.arange(3, 43).reshape(2, 20)


@torch.no_grad()
def relative_error(model: Any, hf: Any) -> float:
    theirs, ours = hf(TOKENS).logits, model(TOKENS)
    return float((ours - theirs).norm() / theirs.norm())


@with_peft
@pytest.mark.parametrize(
    ("changes", "scale"),
    [({}, 4.0), ({"use_rslora": True}, 8 / 2**0.5), ({"alpha_pattern": {"v_proj": 1}}, 0.5)],
    ids=["plain", "rank-stabilised", "its own alpha"],
)
def test_an_adapter_is_merged_into_its_base(
    tmp_path: Path, base: Path, changes: dict[str, Any], scale: float
) -> None:
    adapter = write_adapter(tmp_path / "adapter", str(base), **changes)
    model = load_model(adapter)
    assert relative_error(model, added_by_hand(hugging_face(base), adapter, scale)) < CLOSE
    assert relative_error(model, hugging_face(base)) > 100 * CLOSE
    assert relative_error(model, checkpoint_of(model)) < CLOSE


@with_peft
def test_a_merged_model_is_known_by_its_base_and_its_adapter(tmp_path: Path, base: Path) -> None:
    one = write_adapter(tmp_path / "one", str(base))
    two = write_adapter(tmp_path / "two", str(base), lora_alpha=16)
    found = [model_provenance(load_model(folder)) for folder in (base, one, two)]
    assert len({about["fingerprint"] for about in found}) == 3
    assert found[1]["name"] == found[1]["folder"] == str(one)


@with_peft
@pytest.mark.parametrize("size", [1e-2, 0.1, 1.0])
@pytest.mark.parametrize("module", ["lm_head", "model.embed_tokens"])
def test_an_adapter_of_a_tied_embedding_is_refused_in_every_dtype(
    tmp_path: Path, base: Path, module: str, size: float
) -> None:
    adapter = write_adapter(tmp_path / "adapter", str(base), target_modules=[module.split(".")[-1]])
    rows, place = hugging_face(base).config.vocab_size, f"base_model.model.{module}.lora_"
    draw = torch.Generator().manual_seed(0)
    wide = torch.randn(2, 32, generator=draw), torch.randn(rows, 2, generator=draw)
    weights = {f"{place}A.weight": size * wide[0], f"{place}B.weight": wide[1]}
    if module != "lm_head":
        weights = {
            f"{place}embedding_A": size * wide[1].T.contiguous(),
            f"{place}embedding_B": wide[0].T.contiguous(),
        }
    save_file(weights, adapter / "adapter_model.safetensors")
    for dtype in ("float32", "bfloat16"):
        with pytest.raises(InputError, match=r"cannot be merged.*usually because .*tied"):
            load_model(adapter, dtype=dtype)


@with_peft
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_an_adapter_is_merged_in_float32_and_then_rounded(
    tmp_path: Path, base: Path, dtype: str
) -> None:
    adapter = write_adapter(tmp_path / "adapter", str(base))
    exact = added_by_hand(hugging_face(base), adapter, 4.0)
    read = checkpoint_of(load_model(adapter, dtype=dtype))
    for name, weight in exact.named_parameters():
        torch.testing.assert_close(read.get_parameter(name), weight.to(getattr(torch, dtype)))
    assert read.generation_config.eos_token_id == exact.generation_config.eos_token_id


@with_peft
def test_a_tokenizer_or_template_beside_the_adapter_is_part_of_its_fingerprint(
    tmp_path: Path, base: Path
) -> None:
    adapter, found = write_adapter(tmp_path / "adapter", str(base)), []
    found.append(model_fingerprint(load_model(adapter)))
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(base / file, adapter)
    found.append(model_fingerprint(load_model(adapter)))
    (adapter / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    found.append(model_fingerprint(load_model(adapter)))
    text = json.loads((adapter / "tokenizer.json").read_text())
    text["normalizer"] = {"type": "Lowercase"}
    (adapter / "tokenizer.json").write_text(json.dumps(text))
    found.append(model_fingerprint(load_model(adapter)))
    assert len(set(found)) == 4


@with_peft
@pytest.mark.parametrize("layers", [3, 5])
def test_an_adapter_for_another_base_is_refused(tmp_path: Path, layers: int) -> None:
    other = random_qwen3(tmp_path / "base", num_hidden_layers=layers)
    with pytest.raises(InputError, match=r"does not fit .*do not match: only one has"):
        load_model(write_adapter(tmp_path / "adapter", str(other)))


@with_peft
def test_an_adapter_of_another_width_is_refused(tmp_path: Path) -> None:
    other = random_qwen3(tmp_path / "base", hidden_size=48)
    with pytest.raises(InputError, match="does not fit"):
        load_model(write_adapter(tmp_path / "adapter", str(other)))


@with_peft
def test_the_base_of_an_adapter_is_never_guessed(tmp_path: Path, base: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", str(tmp_path / "elsewhere"))
    with pytest.raises(InputError, match=r"needs its base: There is no folder .*elsewhere"):
        load_model(adapter)
    stacked = write_adapter(tmp_path / "stacked", str(adapter))
    with pytest.raises(InputError, match="is itself an adapter"):
        load_model(stacked)


def test_without_peft_the_line_that_installs_it_is_named(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "peft" else find(name, *a)
    )
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(InputError, match=r"pip install saelens-steer\[peft\]"):
        load_model(write_adapter(tmp_path / "adapter", str(base)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"peft_type": "PROMPT_TUNING"}, "of type PROMPT_TUNING"),
        ({"peft_type": "IA3"}, "of type IA3"),
        ({"alora_invocation_tokens": [1, 2]}, "LORA with alora_invocation_tokens"),
        ({"megatron_config": {"a": 1}}, "LORA with megatron_config"),
        ({"base_model_name_or_path": None}, "names no base"),
        ({"base_model_name_or_path": ""}, "names no base"),
    ],
)
def test_an_adapter_that_cannot_be_merged_is_refused_by_its_kind(
    tmp_path: Path, base: Path, changes: dict[str, Any], words: str
) -> None:
    adapter = write_adapter(tmp_path / "adapter", str(base))
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**config, **changes}))
    with pytest.raises(InputError, match=words):
        load_model(adapter)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"peft_type": "LORA"}'])
def test_a_damaged_config_of_an_adapter_is_named(tmp_path: Path, base: Path, text: str) -> None:
    adapter = write_adapter(tmp_path / "adapter", str(base))
    (adapter / "adapter_config.json").write_text(text)
    with pytest.raises(InputError, match="does not describe an adapter"):
        load_model(adapter)


def test_pickled_weights_of_an_adapter_are_never_read(tmp_path: Path, base: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", str(base))
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(InputError, match="pickled weights"):
        load_model(adapter)


def test_an_adapter_beside_whole_weights_is_not_ignored(tmp_path: Path) -> None:
    folder = random_qwen3(tmp_path / "model")
    adapter = write_adapter(tmp_path / "adapter", str(folder))
    for file in adapter.iterdir():
        file.rename(folder / file.name)
    with pytest.raises(InputError, match=r"an adapter and also model\.safetensors"):
        load_model(folder)


@pytest.mark.parametrize(
    "names",
    [
        {"{}.lora_A.weight": (2, 32), "{}.lora_B.weight": (32, 2)},
        {"{}.lora_A.default.weight": (2, 32), "{}.lora_B.default.weight": (32, 2)},
        {"{}.lora_magnitude_vector": (32,)},
        {"{}.base_layer.weight": (32, 32)},
    ],
    ids=["saved", "named", "DoRA", "attached"],
)
@pytest.mark.parametrize("architecture", ["qwen3", "llama2"])
def test_adapter_weights_among_whole_weights_are_refused_by_name(
    tmp_path: Path, architecture: str, names: dict[str, tuple[int, ...]]
) -> None:
    folder = random_checkpoint(architecture, tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    place = "model.layers.1.self_attn.v_proj"
    extra = {name.format(place): torch.ones(shape) for name, shape in names.items()}
    save_file({**weights, **extra}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"model\.layers\.1\..*part of a LoRA adapter"):
        load_model(folder)
