"""Laws of vectors in files: what is read is what was written, bit by bit, and steers alike."""

from __future__ import annotations

import builtins
import json
import struct

import gguf
import numpy as np
import pytest
import torch
from checkpoints_any import random_checkpoint
from gguf_files import contents_of
from safetensors.torch import save_file

import saelens_steer as ss
from saelens_steer.errors import InputError
from saelens_steer.steering.gguf import LLAMA_CPP, direction_layer

WIDTH = 8
PRE = "blocks.4.hook_resid_pre"


def vectors(n: int = 2, width: int = WIDTH) -> dict[str, torch.Tensor]:
    """Random vectors with the smallest and the largest float32 among their entries."""
    drawn = torch.randn(n, width, generator=torch.Generator().manual_seed(5))
    drawn[0, :3] = torch.tensor([1e-45, -3.4028235e38, -0.0])
    return {f"feature_{i}": drawn[i] for i in range(n)}


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.dtype == b.dtype == torch.float32 and a.numpy().tobytes() == b.numpy().tobytes()


def text_of(reader: gguf.GGUFReader, key: str) -> str:
    return bytes(reader.fields[key].parts[-1]).decode()


def test_safetensors_give_back_names_bits_hook_and_what_was_said(tmp_path):
    given, about = vectors(), {"feature_1": {"feature": 1, "alpha": -2.0, "why": "数学"}}
    path = ss.save_vectors(tmp_path / "v.safetensors", given, PRE, model="tiny", about=about)
    held = ss.load_vectors(path)
    assert held.architecture is None
    assert all(same_bits(held.vectors[name], given[name]) for name in given)
    assert held.hook_names == dict.fromkeys(given, PRE)
    assert (held.model, held.about) == ("tiny", about)


@pytest.mark.parametrize("suffix", [".safetensors", ".gguf"])
def test_equal_vectors_leave_equal_bytes(tmp_path, suffix):
    given, about = vectors(1), {"feature_0": {"b": 1, "a": 2}}
    turned = {"feature_0": dict(reversed(about["feature_0"].items()))}
    files = [tmp_path / f"{i}{suffix}" for i in range(2)]
    for file, said in zip(files, (about, turned), strict=True):
        ss.save_vectors(file, dict(reversed(given.items())), PRE, about=said)
    assert files[0].read_bytes() == files[1].read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == [f.name for f in files]


def test_a_control_vector_has_the_keys_names_types_and_bits_that_llama_cpp_reads(tmp_path):
    first, second = vectors().values()
    given = {PRE: first, "blocks.6.hook_mlp_out": second}
    path = ss.save_vectors(tmp_path / "v.gguf", given, model="qwen3")
    reader = gguf.GGUFReader(path)
    assert text_of(reader, "general.architecture") == "controlvector"
    assert text_of(reader, "controlvector.model_hint") == "qwen3"
    assert reader.fields["controlvector.layer_count"].types == [gguf.GGUFValueType.UINT32]
    assert reader.fields["controlvector.layer_count"].parts[-1].tolist() == [2]
    assert [tensor.name for tensor in reader.tensors] == ["direction.3", "direction.6"]
    for tensor, vector in zip(reader.tensors, (first, second), strict=True):
        assert tensor.tensor_type == gguf.GGMLQuantizationType.F32
        assert tensor.shape.tolist() == [WIDTH]
        assert tensor.data.tobytes() == vector.numpy().tobytes()


@pytest.mark.parametrize("architecture", ["llama3", "qwen2", "qwen3", "gemma2", "gemma3", "gpt2"])
def test_a_control_vector_names_the_architecture_of_the_models_own_gguf_file(
    tmp_path, architecture
):
    folder = random_checkpoint(architecture, tmp_path / "hf")
    keys = contents_of(folder).keys
    name = json.loads((folder / "config.json").read_text())["architectures"][0]
    given = {PRE: vectors()["feature_0"]}
    path = ss.save_vectors(tmp_path / "v.gguf", given, model="mine", architecture=name)
    hint = text_of(gguf.GGUFReader(path), "controlvector.model_hint")
    assert hint == keys["general.architecture"]
    assert ss.load_vectors(path).model == "mine"


@pytest.mark.parametrize("suffix", [".safetensors", ".gguf"])
@pytest.mark.parametrize("name", ["LlamaForCausalLM", "llama", "OwnForCausalLM", None])
def test_an_architecture_comes_back_and_is_asked_for_where_other_tools_read_it(
    tmp_path, capsys, suffix, name
):
    path, given = tmp_path / f"v{suffix}", {PRE: vectors()["feature_0"]}
    held = ss.load_vectors(ss.save_vectors(path, given, model="mine", architecture=name))
    assert (held.model, held.architecture) == ("mine", name)
    asked = name is None and suffix == ".gguf"
    assert ("give architecture=, the model's class" in capsys.readouterr().err) == asked
    written = path.read_bytes()
    ss.save_vectors(path, held.vectors, model=held.model, architecture=held.architecture)
    assert path.read_bytes() == written


def test_every_architecture_that_a_control_vector_may_name_is_one_of_llama_cpps():
    assert set(LLAMA_CPP.values()) <= set(gguf.MODEL_ARCH_NAMES.values())


def test_a_control_vector_comes_back_the_same(tmp_path):
    first, second = vectors().values()
    given = {"blocks.2.hook_resid_post": first, "blocks.5.hook_resid_pre": second}
    about = {"blocks.2.hook_resid_post": {"feature": 9}}
    held = ss.load_vectors(ss.save_vectors(tmp_path / "v.gguf", given, model="m", about=about))
    assert list(held.vectors) == list(given)
    assert all(map(same_bits, held.vectors.values(), (first, second)))
    assert held.hook_names == {name: name for name in given}
    assert (held.model, held.about) == ("m", about)
    named = ss.load_vectors(ss.save_vectors(tmp_path / "w.gguf", {"feature_9": first}, PRE))
    assert (list(named.vectors), named.hook_names) == (["feature_9"], {"feature_9": PRE})


def test_a_control_vector_whose_hooks_belong_to_other_layers_is_damaged(tmp_path):
    path = ss.save_vectors(tmp_path / "v.gguf", {"one": vectors()["feature_0"]}, PRE)
    path.write_bytes(path.read_bytes().replace(b"blocks.4.hook", b"blocks.5.hook"))
    with pytest.raises(InputError, match="its hooks belong to other layers"):
        ss.load_vectors(path)


@pytest.mark.parametrize(
    "hook_name, layer",
    [
        ("blocks.2.hook_resid_pre", 1),
        ("blocks.1.hook_resid_post", 1),
        ("blocks.7.hook_resid_post", 7),
        ("blocks.5.hook_mlp_out", 5),
    ],
)
def test_a_direction_belongs_to_the_output_of_its_layer(hook_name, layer):
    assert direction_layer(hook_name) == layer


@pytest.mark.parametrize("place", ["hook_resid_pre", "hook_resid_post", "hook_mlp_out"])
def test_adding_at_a_hook_is_adding_at_the_place_of_its_direction(random_model, place):
    width, hook_name = random_model.cfg.d_model, f"blocks.2.{place}"
    tokens, vector = torch.tensor([[5, 6, 7]]), vectors(1, width)["feature_0"].clamp(-1, 1)
    logits = []
    for name in (hook_name, f"blocks.{direction_layer(hook_name)}.hook_resid_post"):
        with ss.steered(random_model, ss.add(vector, 2.0), hook_name=name), torch.no_grad():
            logits.append(random_model(tokens))
    torch.testing.assert_close(*logits, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(logits[0], random_model(tokens), atol=1e-3)


@pytest.mark.parametrize("suffix", [".safetensors", ".gguf"])
def test_what_was_loaded_steers_as_what_was_saved(tiny_model, tmp_path, suffix):
    vector = torch.randn(tiny_model.cfg.d_model, generator=torch.Generator().manual_seed(2))
    held = ss.load_vectors(ss.save_vectors(tmp_path / f"v{suffix}", {"one": vector}, PRE))
    ((name, loaded),) = held.vectors.items()
    tokens, logits = torch.tensor([[5, 60, 700]]), []
    for added, hook_name in ((vector, PRE), (loaded, held.hook_names[name])):
        with ss.steered(tiny_model, ss.add(added, 8.0), hook_name=hook_name), torch.no_grad():
            logits.append(tiny_model(tokens))
    assert torch.equal(*logits)
    assert not torch.equal(logits[0], tiny_model(tokens))


def test_vectors_in_half_precision_are_written_in_float32(tmp_path):
    held = ss.load_vectors(
        ss.save_vectors(tmp_path / "v.gguf", {PRE: torch.tensor([1.5, -2.0]).bfloat16()})
    )
    assert same_bits(held.vectors[PRE], torch.tensor([1.5, -2.0]))


@pytest.mark.parametrize(
    "hook_name, complaint",
    [
        ("blocks.4.hook_resid_mid", "cannot be added at blocks.4.hook_resid_mid"),
        ("blocks.4.hook_attn_out", "cannot be added at"),
        ("blocks.4.mlp.hook_out", "cannot be added at"),
        ("blocks.1.hook_resid_pre", "before the output of layer 1"),
        ("blocks.0.hook_resid_post", "before the output of layer 1"),
        ("hook_embed", "not a hook of a layer"),
    ],
)
def test_hooks_that_a_control_vector_cannot_express_are_refused(tmp_path, hook_name, complaint):
    with pytest.raises(InputError, match=complaint):
        ss.save_vectors(tmp_path / "v.gguf", vectors(1), hook_name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("given", [[torch.ones(4)], torch.ones(4)])
def test_vectors_without_names_are_refused(tmp_path, unchecked, given):
    with pytest.raises(InputError, match=r'should map names to vectors, .*: write {"name": v}'):
        ss.save_vectors(tmp_path / "v.safetensors", given, PRE)


def test_two_vectors_of_one_layer_are_no_control_vector(tmp_path):
    with pytest.raises(InputError, match="one vector per layer"):
        ss.save_vectors(tmp_path / "v.gguf", vectors(), PRE)
    one, other = vectors().values()
    with pytest.raises(InputError, match="one vector per layer"):
        ss.save_vectors(tmp_path / "v.gguf", {PRE: one, "blocks.3.hook_mlp_out": other})


@pytest.mark.parametrize("suffix", [".safetensors", ".gguf"])
@pytest.mark.parametrize(
    "change, complaint",
    [
        (lambda v: v | {"b": torch.full((WIDTH,), float("nan"))}, "b has entries that are not fin"),
        (lambda v: v | {"b": torch.full((WIDTH,), 1e39, dtype=torch.float64)}, "not finite"),
        (lambda v: v | {"b": torch.ones(WIDTH + 1)}, "of the same width"),
        (lambda v: v | {"b": torch.ones(1, WIDTH)}, "one-dimensional"),
        (lambda v: {}, "there are no vectors"),
    ],
)
def test_vectors_that_are_none_are_refused(tmp_path, suffix, change, complaint):
    with pytest.raises(InputError, match=complaint):
        ss.save_vectors(tmp_path / f"v{suffix}", change(vectors(1)), PRE)
    assert list(tmp_path.iterdir()) == []


def test_other_suffixes_missing_files_and_strange_notes_are_refused(tmp_path):
    for act in (lambda p: ss.save_vectors(p, vectors(), PRE), ss.load_vectors):
        with pytest.raises(InputError, match=r"end in \.safetensors or \.gguf"):
            act(tmp_path / "v.pt")
    with pytest.raises(InputError, match="there is no file"):
        ss.load_vectors(tmp_path / "v.gguf")
    with pytest.raises(InputError, match="'other', which is not one of the vectors"):
        ss.save_vectors(tmp_path / "v.safetensors", vectors(), PRE, about={"other": 1})


@pytest.mark.parametrize("suffix", [".safetensors", ".gguf"])
def test_a_file_cut_anywhere_is_refused(tmp_path, suffix):
    path = ss.save_vectors(tmp_path / f"whole{suffix}", vectors(1), PRE, about={"feature_0": 1})
    whole, cut = path.read_bytes(), tmp_path / f"cut{suffix}"
    size = len(whole) - 1 if suffix == ".safetensors" else len(whole.rstrip(b"\0")) - 1
    for length in range(0, size, 3):
        cut.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"cut\."):
            ss.load_vectors(cut)


def test_safetensors_of_others_are_refused(tmp_path):
    path = tmp_path / "v.safetensors"
    for metadata in (None, {"saelens_steer": "{}"}, {"saelens_steer": "[1"}):
        save_file(vectors(), path, metadata=metadata)
        with pytest.raises(InputError, match="holds no steering vectors"):
            ss.load_vectors(path)
    said = {"hook_names": {"a": PRE}, "model": "m", "about": {}}
    for tensor in (torch.ones(2, 3), torch.ones(3, dtype=torch.int64)):
        save_file({"a": tensor}, path, metadata={"saelens_steer": json.dumps(said)})
        with pytest.raises(InputError, match="a is not a float32 vector"):
            ss.load_vectors(path)


@pytest.mark.parametrize(
    "kind, tensors, complaint",
    [
        (
            "llama",
            {"direction.1": np.ones(3, np.float32)},
            "not a control vector: its architecture is llama",
        ),
        (
            "controlvector",
            {"output.weight": np.ones(3, np.float32)},
            r"should be named direction\.L",
        ),
        ("controlvector", {"direction.0": np.ones(3, np.float32)}, r"should be named direction\.L"),
        ("controlvector", {"direction.1": np.ones((2, 3), np.float32)}, "not a float32 vector"),
        ("controlvector", {"direction.1": np.ones(3, np.float16)}, "not a float32 vector"),
        ("controlvector", {"direction.1": np.full(3, np.inf, np.float32)}, "not finite"),
        ("controlvector", {}, "there are no vectors"),
    ],
)
def test_gguf_files_that_are_no_control_vector_are_refused(tmp_path, kind, tensors, complaint):
    writer = gguf.GGUFWriter(tmp_path / "v.gguf", kind)
    for name, data in tensors.items():
        writer.add_tensor(name, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(InputError, match=complaint):
        ss.load_vectors(tmp_path / "v.gguf")


def test_control_vectors_as_repeng_writes_them_are_read(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "v.gguf", "controlvector")
    writer.add_string("controlvector.model_hint", "mistral")
    writer.add_uint32("controlvector.layer_count", 2)
    for layer in (12, 3):
        writer.add_tensor(f"direction.{layer}", np.full(4, layer, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    held = ss.load_vectors(tmp_path / "v.gguf")
    assert (held.model, held.architecture, held.about) == ("mistral", "mistral", {})
    assert {name: v[0].item() for name, v in held.vectors.items()} == {
        "blocks.3.hook_resid_post": 3.0,
        "blocks.12.hook_resid_post": 12.0,
    }


def test_counts_that_no_file_could_hold_are_refused_at_once(tmp_path):
    path = tmp_path / "v.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 1 << 62, 1 << 62))
    with pytest.raises(InputError, match="is damaged, or not a GGUF file"):
        ss.load_vectors(path)


def test_without_the_package_one_sentence_says_what_to_install(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "gguf":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"saelens-steer\[gguf\]"):
        ss.save_vectors(tmp_path / "v.gguf", vectors(1), PRE)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["hook_resid_prex", "attn.hook_q", "ln1.hook_normalized", ""])
def test_a_vector_is_saved_only_for_a_hook_that_can_be_steered(tmp_path, place):
    with pytest.raises(InputError, match=r"No model can be steered|not a hook of a layer"):
        ss.save_vectors(tmp_path / "v.safetensors", {"v": torch.ones(4)}, f"blocks.3.{place}")


@pytest.mark.parametrize("place", ["hook_attn_out", "attn.hook_z", "mlp.hook_out"])
def test_a_vector_is_saved_for_each_kind_of_hook_that_can_be_steered(tmp_path, place):
    path = ss.save_vectors(tmp_path / "v.safetensors", {"v": torch.ones(4)}, f"blocks.3.{place}")
    assert ss.load_vectors(path).hook_names == {"v": f"blocks.3.{place}"}
