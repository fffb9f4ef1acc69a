"""No code in a checkpoint, data set, SAE or vector file is run, and nobody is asked whether to."""

import builtins
import contextlib
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import datasets
import httpx
import pytest
import torch
from checkpoints import small_tokenizer
from gguf_files import contents_of
from huggingface_hub.errors import EntryNotFoundError
from lora_files import with_peft, write_adapter

from saelens_steer import load_model, load_prompts, load_sae, load_vectors
from saelens_steer.config import PromptSpec
from saelens_steer.data.corpus import load_corpus
from saelens_steer.data.prompts import steered_prompts
from saelens_steer.errors import InputError

TOKENS = torch.arange(3, 23).reshape(2, 10)


class Runs:
    """Unpickling it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.path, "ran")


@pytest.fixture
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    def asked(*_: object) -> str:
        raise AssertionError("a question was asked on the terminal")

    monkeypatch.setattr(builtins, "input", asked)
    return tmp_path / "ran"


def script(folder: Path, marker: Path, name: str) -> None:
    (folder / name).write_text(f"open({str(marker)!r}, 'w').close()\nclass Own: pass\n")


def change(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def refused(call: Any, marker: Path) -> str:
    with pytest.raises(InputError) as refusal:
        call()
    assert not marker.exists()
    return str(refusal.value)


def booby_trap(folder: Path, marker: Path) -> None:
    """Code beside whatever is in a folder, named by each file that may name code."""
    for name in ("own.py", "custom_generate/generate.py", "sitecustomize.py", "setup.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        script(folder, marker, name)
    kinds = ("AutoConfig", "AutoModel", "AutoModelForCausalLM", "AutoTokenizer")
    code = {"auto_map": dict.fromkeys(kinds, "own.Own"), "custom_pipelines": {"x": "own.Own"}}
    own = {"config.json": {"model_type": "own", "architectures": ["Own"]}}
    own |= {"tokenizer_config.json": {"tokenizer_class": "Own"}}
    own |= {"processor_config.json": {}, "generation_config.json": {"custom_generate": "own"}}
    for name, about in own.items():
        (folder / name).write_text(json.dumps({**code, **about}))
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt", "trainer_state.pkl"):
        (folder / name).write_bytes(pickle.dumps(Runs(marker)))


def loaded_or_refused(path: Path, marker: Path) -> str:
    """Load a model; what was said if it is refused."""
    said = ""
    for model_class in ("HookedTransformer", "TransformerBridge"):
        try:
            load_model(path, model_class=model_class)
        except InputError as refusal:
            said = str(refusal)
        assert not marker.exists()
    return said


@with_peft
@pytest.mark.parametrize("pickled", [False, True])
def test_code_beside_an_adapter_and_named_by_it_is_not_run(
    tmp_path, random_folder, marker, pickled
):
    base = tmp_path / "base"
    shutil.copytree(random_folder, base)
    mapping = {"base_model_class": "Own", "parent_library": "own"}
    naming = {"auto_mapping": mapping, "inference_mode": True, "peft_version": "99.0"}
    adapter = write_adapter(tmp_path / "adapter", str(base), **naming)
    booby_trap(adapter, marker)
    if not pickled:
        (adapter / "pytorch_model.bin").unlink()
    said = loaded_or_refused(adapter, marker)
    assert ("holds an adapter and also pytorch_model.bin" in said) == pickled


@with_peft
def test_code_of_the_base_of_an_adapter_is_not_run(tmp_path, random_folder, marker):
    base = tmp_path / "base"
    shutil.copytree(random_folder, base)
    booby_trap(base, marker)
    said = loaded_or_refused(write_adapter(tmp_path / "adapter", str(base)), marker)
    assert "adapter" in said or str(base) in said


@with_peft
def test_a_module_that_an_adapter_names_is_not_imported(
    tmp_path, random_folder, marker, monkeypatch
):
    naming = {"megatron_config": {"tensor_model_parallel_size": 1}, "megatron_core": "own"}
    adapter = write_adapter(tmp_path / "adapter", str(random_folder), **naming)
    script(tmp_path, marker, "own.py")
    monkeypatch.syspath_prepend(tmp_path)
    assert "megatron_config" in refused(lambda: load_model(adapter), marker)
    without = write_adapter(tmp_path / "without", str(random_folder), megatron_core="own")
    loaded_or_refused(without, marker)


def test_code_beside_a_gguf_file_is_not_run_and_nothing_there_changes_the_model(
    tmp_path, random_folder, marker
):
    file = contents_of(random_folder).write(tmp_path / "model.gguf")
    logits = load_model(file)(TOKENS)
    booby_trap(tmp_path, marker)
    assert torch.equal(load_model(file)(TOKENS), logits)
    assert not marker.exists()


@with_peft
@pytest.mark.parametrize("with_config", [False, True])
def test_an_adapter_beside_a_gguf_file_is_not_applied_to_it(tmp_path, random_folder, with_config):
    folder = write_adapter(tmp_path / "mixed", str(random_folder))
    file = contents_of(random_folder).write(folder / "model.gguf")
    if with_config:
        shutil.copy(random_folder / "config.json", folder)
    with pytest.raises(
        InputError, match=r"adapter_config\.json is in the same folder as .*model\.gguf"
    ):
        load_model(file)


@pytest.mark.parametrize("kind", ["AutoConfig", "AutoModelForCausalLM"])
def test_a_models_own_code_is_not_run(random_folder, tmp_path, marker, kind):
    folder = tmp_path / "model"
    shutil.copytree(random_folder, folder)
    script(folder, marker, "own.py")
    about = {"auto_map": {kind: "own.Own"}, "model_type": "own", "architectures": ["Own"]}
    change(folder / "config.json", **about)
    refused(lambda: load_model(folder), marker)


def test_a_tokenizers_own_code_is_not_run(random_folder, tmp_path, marker):
    folder = tmp_path / "model"
    shutil.copytree(random_folder, folder)
    script(folder, marker, "own.py")
    own = {"auto_map": {"AutoTokenizer": ["own.Own", None]}, "tokenizer_class": "Own"}
    change(folder / "tokenizer_config.json", **own)
    with contextlib.suppress(InputError):  # a class of transformers may read it
        load_model(folder)
    assert not marker.exists()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "adapter_model.bin"])
def test_pickled_weights_are_not_run(random_folder, tmp_path, marker, name):
    folder = tmp_path / "model"
    shutil.copytree(random_folder, folder)
    for weights in folder.glob("*.safetensors"):
        weights.unlink()
    (folder / name).write_bytes(pickle.dumps(Runs(marker)))
    refused(lambda: load_model(folder), marker)


@pytest.mark.parametrize("name", ["ae.pt", "sae.bin", "sae.pth", "sae.pkl"])
def test_a_pickled_sae_is_not_run(tmp_path, marker, name):
    (tmp_path / "sae").mkdir()
    (tmp_path / "sae" / name).write_bytes(pickle.dumps(Runs(marker)))
    refused(lambda: load_sae(tmp_path / "sae"), marker)
    refused(lambda: load_sae(tmp_path / "sae" / name), marker)


@pytest.mark.parametrize("name", ["v.pt", "v.npy", "v.safetensors", "v.gguf"])
def test_pickled_vectors_are_not_run(tmp_path, marker, name):
    (tmp_path / name).write_bytes(pickle.dumps(Runs(marker)))
    refused(lambda: load_vectors(tmp_path / name), marker)


def test_a_data_sets_own_code_is_not_run(tmp_path, marker):
    folder = tmp_path / "mine"
    folder.mkdir()
    script(folder, marker, "mine.py")
    refused(lambda: load_prompts(str(folder)), marker)
    refused(lambda: load_prompts(str(folder / "mine.py")), marker)
    refused(lambda: load_corpus(str(folder), small_tokenizer(), 1, 0), marker)


class Hub:
    """A hub whose every repository holds the files of one folder."""

    folder: Path

    def __init__(self, **_: Any) -> None:
        pass

    def hf_hub_download(self, repo_id: str, filename: str, **_: Any) -> str:
        if not (self.folder / filename).exists():
            raise EntryNotFoundError(f"{repo_id} has no {filename}", httpx.Response(404))
        return str(self.folder / filename)


@pytest.mark.parametrize("offline", [False, True])
@pytest.mark.parametrize("card", ["", "dataset_info:\n  builder_name: own\n"])
def test_the_loading_script_of_a_dataset_on_the_hub_is_not_run(
    tmp_path, marker, monkeypatch, offline, card
):
    Hub.folder = tmp_path / "0123"
    Hub.folder.mkdir()
    for name in ("mine.py", "own.py"):
        script(Hub.folder, marker, name)
    (Hub.folder / "README.md").write_text(f"---\n{card}---\n")
    (Hub.folder / "dataset_infos.json").write_text(json.dumps({"default": {"builder_name": "own"}}))
    monkeypatch.chdir(tmp_path)  # where a module of this name would be found
    script(tmp_path, marker, "mine.py")
    if not offline:
        monkeypatch.setattr(datasets.load, "HfApi", Hub)
        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    for name in ("someone/mine", "mine", "someone/mine:default:train"):
        said = refused(lambda name=name: load_prompts(name), marker)
        assert offline or "scripts are no longer supported" in said
        refused(lambda name=name: load_corpus(name, small_tokenizer(), 1, 0), marker)
        sample = PromptSpec.model_validate({"source": name, "sample": {"n": 1}})
        refused(lambda sample=sample: steered_prompts(sample), marker)
