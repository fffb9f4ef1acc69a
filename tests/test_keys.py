"""A key changes whenever the answer would, and only then."""

from __future__ import annotations

import json
import os
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from checkpoints import random_qwen3
from saes import random_sae
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from saelens_steer.config import parse_config
from saelens_steer.data import load_corpus, source_version
from saelens_steer.functions import function_version, imported
from saelens_steer.metrics import metrics_version
from saelens_steer.model.memory import _digest
from saelens_steer.model.snapshot import snapshot_fingerprint, weight_files
from saelens_steer.pipeline.inputs import RunInputs
from saelens_steer.sae import save_sae

OWN = {
    "deep.py": "FACTOR = 1\ndef times(x): return FACTOR * x\n",
    "middle.py": "import deep\ndef g(x): return deep.times(x)\n",
    "own_pk/__init__.py": "from .first import g as g\n",
    "own_pk/first.py": "from . import second\ndef g(x): return second.h(x)\n",
    "own_pk/second.py": "def h(x): return x + 1\n",
    "patches.py": "import deep\nVERSION = 1\n",
    "unrelated.py": "X = 1\n",
    "through.py": "import middle\ndef f(logits): return middle.g(logits[:, 0])\n",
    "names.py": "from middle import g\ndef f(logits): return g(logits[:, 0])\n",
    "packages.py": "from own_pk import g\ndef f(logits): return g(logits[:, 0])\n",
    "later.py": "def f(logits):\n    from deep import times\n    return times(logits[:, 0])\n",
    "patched.py": "import patches\ndef f(logits): return logits[:, 0]\n",
    "called.py": """
        import importlib
        def f(logits): return importlib.import_module("deep").times(logits[:, 0])
        """,
}
READS = {
    "through": {"deep.py", "middle.py"},
    "names": {"deep.py", "middle.py"},
    "packages": {"own_pk/__init__.py", "own_pk/first.py", "own_pk/second.py"},
    "later": {"deep.py"},
    "patched": {"patches.py", "deep.py"},
    "called": {"deep.py"},
}


@pytest.fixture
def own(tmp_path, monkeypatch) -> Iterator[Path]:
    """The modules OWN in the working directory, not yet imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    for name, source in OWN.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(textwrap.dedent(source))
    yield tmp_path
    for name in set(sys.modules) - before:
        if not name.startswith("saelens_steer"):
            del sys.modules[name]


def later(file: Path, content: str | bytes | None = None) -> None:
    """Write new content, or the same, at a later time."""
    data = file.read_bytes() if content is None else content
    file.write_bytes(data if isinstance(data, bytes) else data.encode())
    os.utime(file, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns + 10**9))


@pytest.mark.parametrize("module", READS)
def test_code_counts_with_all_modules_of_ones_own_that_it_imports(own, module):
    def versions() -> tuple[str, str]:
        return function_version(f"{module}:f"), metrics_version([f"{module}:f"], "fresh")

    for name in [*OWN, "README.md"]:
        before = versions()
        file = own / name
        later(file, (file.read_text() if file.exists() else "") + "\nADDED = 1\n")
        reads = name in READS[module] or name == f"{module}.py"
        unknown = module == "called"  # its metric is measured anew in every run anyway
        for old, new in list(zip(before, versions(), strict=True))[: 1 if unknown else 2]:
            assert (old != new) is reads, name
        later(file)
        assert versions() == versions()


def test_a_changed_module_that_a_metric_imports_is_the_one_that_runs(own):
    logits = torch.ones(2, 3)
    for factor in (1, 5):
        later(own / "deep.py", f"FACTOR = {factor}\ndef times(x): return FACTOR * x\n")
        for module in ("through", "names", "later"):
            assert imported(f"{module}:f")(logits).tolist() == [factor, factor]


def test_an_installed_package_that_own_code_imports_counts_by_its_version(own, monkeypatch):
    (own / "uses.py").write_text("import scipy\ndef f(logits): return logits[:, 0]\n")
    before = function_version("uses:f")
    monkeypatch.setattr("saelens_steer.own_code._distribution", lambda top: f"{top} 99")
    assert function_version("uses:f") != before


def corpus_folder(place: Path) -> Path:
    place.mkdir()
    for number in (1, 2):
        rows = [json.dumps({"text": f"text {number} {i}"}) for i in range(3)]
        (place / f"part-{number}.jsonl").write_text("\n".join(rows) + "\n")
    (place / "README.md").write_text("About this corpus.\n")
    return place


def test_the_key_of_a_corpus_folder_covers_every_file_read_from_it(tmp_path, random_model):
    folder = corpus_folder(tmp_path / "corpus")
    name = str(folder)
    before = source_version(name)
    assert before == source_version(f"{name}:default:train") == source_version(name)
    assert len(load_corpus(name, random_model.tokenizer, 1000, 0)) == 6
    later(folder / "README.md", "Other words.\n")
    later(folder / "part-1.jsonl")
    assert source_version(name) == before
    later(folder / "part-2.jsonl", json.dumps({"text": "another"}) + "\n")
    changed = source_version(name)
    assert changed != before
    (folder / "part-3.jsonl").write_text(json.dumps({"text": "one more"}) + "\n")
    assert source_version(name) not in (before, changed)
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files: part-1.jsonl\n---\nWords.\n"
    )
    restricted = source_version(name)
    later(folder / "part-2.jsonl", json.dumps({"text": "not read"}) + "\n")
    assert source_version(name) == restricted


@pytest.mark.parametrize("name", ["corpus.txt", "corpus.jsonl"])
def test_a_corpus_file_counts_by_its_content(name, tmp_path):
    file = tmp_path / name
    file.write_text('{"text": "one"}\n')
    before = source_version(str(file))
    later(file)
    (tmp_path / "README.md").write_text("words")
    assert source_version(str(file)) == before
    later(file, '{"text": "two"}\n')
    assert source_version(str(file)) != before
    assert source_version("tiny") is None


def changed_json(name: str, **settings):
    def change(folder: Path) -> None:
        file = folder / name
        about = json.loads(file.read_text()) if file.exists() else {}
        file.write_text(json.dumps(about | settings))

    return change


def written(name: str, text: str):
    def change(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)

    return change


def one_weight(folder: Path) -> None:
    file = weight_files(folder)[-1]
    weights = load_file(file)
    next(iter(weights.values())).view(-1)[0] += 1
    save_file(weights, file, {"format": "pt"})


def sharded(folder: Path) -> None:
    """The same weights in several files with an index."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    places = {key: f"model-{i % 2}.safetensors" for i, key in enumerate(sorted(weights))}
    for name in set(places.values()):
        part = {key: weights[key] for key in places if places[key] == name}
        save_file(part, folder / name, {"format": "pt"})
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


DECIDES = {
    "a weight": one_weight,
    "chat_template.jinja": written("chat_template.jinja", "{{ messages }}"),
    "tokenizer_config.json": changed_json("tokenizer_config.json", chat_template="other"),
    "an additional template": written("additional_chat_templates/tool.jinja", "{{ tools }}"),
    "generation_config.json": changed_json("generation_config.json", eos_token_id=[1, 2]),
    "config.json": changed_json("config.json", rope_theta=123.0),
    "tokenizer.json": changed_json("tokenizer.json", extra=1),
}
UNRELATED = {
    "README.md": written("README.md", "words"),
    "an image": written("image.png", "words"),
    "pickled weights beside safetensors": written("pytorch_model.bin", "never read"),
    "a shard that no index lists": written("model-00009-of-00009.safetensors", "never read"),
    "a later time": lambda folder: [later(file) for file in weight_files(folder)],
}


@pytest.mark.parametrize("layout", ["one file", "sharded"])
def test_the_key_of_a_model_folder_covers_every_file_that_affects_its_output(layout, tmp_path):
    folder = random_qwen3(tmp_path / "model")
    if layout == "sharded":
        sharded(folder)
        assert [file.name for file in weight_files(folder)] == [
            "model-0.safetensors",
            "model-1.safetensors",
        ]
    before = snapshot_fingerprint(folder)
    for what, change in UNRELATED.items():
        change(folder)
        assert snapshot_fingerprint(folder) == before, what
    found = [before]
    for change in DECIDES.values():
        change(folder)
        found.append(snapshot_fingerprint(folder))
    assert len(set(found)) == len(found)


def test_the_files_of_the_fingerprint_are_those_that_transformers_reads(tmp_path):
    """In its order of preference: each is damaged in turn, and the one that counts fails."""
    folder = random_qwen3(tmp_path / "model")
    whole = (folder / "model.safetensors").read_bytes()
    sharded(folder)
    (folder / "model.safetensors").write_bytes(whole)
    (folder / "pytorch_model.bin").write_bytes(b"never read")
    for name in ("model-0.safetensors", "model-1.safetensors", "model.safetensors"):
        file = folder / name
        content = file.read_bytes()
        file.write_bytes(b"damaged")
        counts = file in weight_files(folder)
        try:
            AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True)
            read = False
        except Exception:
            read = True
        file.write_bytes(content)
        assert counts is read, name


def test_a_model_in_memory_counts_with_its_stop_tokens(tmp_path):
    folder = random_qwen3(tmp_path / "model")
    hf, tokenizer = (c.from_pretrained(folder) for c in (AutoModelForCausalLM, AutoTokenizer))
    before = _digest(hf, tokenizer)
    hf.generation_config.temperature = 0.5
    assert _digest(hf, tokenizer) == before
    hf.generation_config.eos_token_id = [3, 5]
    assert _digest(hf, tokenizer) != before


def test_the_key_of_a_loaded_sae_covers_the_figures_and_log_beside_it(tmp_path):
    folder = save_sae(random_sae(32), tmp_path / "sae")
    (folder / "quality.json").write_text(json.dumps({"verdict": "Good", "l0": 3}))
    (folder / "metrics.jsonl").write_text('{"step": 1}\n')

    def keys() -> list[object]:
        run = RunInputs.__new__(RunInputs)
        run.spec = parse_config({"sae": {"load": {"source": str(folder)}, "train": None}})
        return [run.sae_source, run.source_quality]

    before = keys()
    (folder / "README.md").write_text("words")
    later(folder / "quality.json")
    assert keys() == before
    later(folder / "quality.json", json.dumps({"verdict": "Good", "l0": 4}))
    assert [old == new for old, new in zip(before, keys(), strict=True)] == [True, False]
    later(folder / "metrics.jsonl", '{"step": 2}\n')
    assert keys()[0] != before[0]
