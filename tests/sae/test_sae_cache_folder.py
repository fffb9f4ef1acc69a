"""Cached activations on disk: what was computed is read, and nothing else is taken for it."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from saelens_steer.errors import InputError
from saelens_steer.sae import sae_fingerprint, train_sae
from saelens_steer.sae.training import activation_stream
from saelens_steer.sae.training import train as module

HOOK = "blocks.2.hook_resid_pre"
CACHED = {"cached_tokens": 3000, "training_tokens": 6000, "batch_tokens": 128, "corpus_seed": 0}


@pytest.fixture
def passes(random_model, monkeypatch):
    """How many batches of the corpus the model has read."""
    monkeypatch.setattr(activation_stream, "SHARD", 700)
    seen = []
    real = activation_stream.ActivationStream._activations

    def counted(stream, *batch):
        seen.append(batch)
        return real(stream, *batch)

    monkeypatch.setattr(activation_stream.ActivationStream, "_activations", counted)
    return seen


def fingerprint(model, spec, out) -> str:
    train_sae(model, spec, HOOK, out)
    return sae_fingerprint(out)


def test_a_second_training_computes_no_activations_and_is_the_same(
    random_model, small, tmp_path, passes
):
    folder = str(tmp_path / "cache")
    plain = fingerprint(random_model, small(**CACHED), tmp_path / "plain")
    n, spec = len(passes), small(**CACHED, cache_folder=folder)
    first = fingerprint(random_model, spec, tmp_path / "first")
    assert n <= len(passes) - n < n + 700 / 128 + 1
    n = len(passes)
    second = fingerprint(random_model, spec, tmp_path / "second")
    assert len(passes) == n
    assert plain == first == second
    lines = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("plain", "second")]
    assert [json.loads(lines[0].splitlines()[-1])] == [json.loads(lines[1].splitlines()[-1])]


def test_another_seed_reads_the_same_activations(random_model, small, tmp_path, passes):
    spec = {**CACHED, "cache_folder": str(tmp_path / "cache")}
    first = fingerprint(random_model, small(**spec), tmp_path / "first")
    n = len(passes)
    other = fingerprint(random_model, small(**spec, seed=1), tmp_path / "other")
    assert len(passes) == n and other != first


def test_an_interrupted_cache_continues_after_its_last_shard(
    random_model, small, tmp_path, passes, monkeypatch
):
    spec = small(**CACHED, cache_folder=str(tmp_path / "cache"))
    whole = fingerprint(random_model, small(**CACHED), tmp_path / "whole")
    n, real = len(passes), activation_stream.save_file
    written = []

    def killed(shard, file):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(file)
        real(shard, file)

    monkeypatch.setattr(activation_stream, "save_file", killed)
    with pytest.raises(KeyboardInterrupt):
        train_sae(random_model, spec, HOOK, tmp_path / "sae")
    monkeypatch.setattr(activation_stream, "save_file", real)
    (own,) = (tmp_path / "cache").iterdir()
    assert sorted(file.name for file in own.iterdir()) == ["00000.safetensors", "00001.safetensors"]
    before = len(passes)
    assert fingerprint(random_model, spec, tmp_path / "sae") == whole
    assert len(passes) - before < n


@pytest.mark.parametrize(
    "change",
    [{"context_size": 24}, {"corpus_seed": 1}, {"max_norm": 2.0}, {"batch_tokens": 64}],
    ids=str,
)
def test_what_decides_the_activations_names_their_folder(
    change, random_model, small, tmp_path, passes
):
    spec = {**CACHED, "cache_folder": str(tmp_path / "cache")}
    train_sae(random_model, small(**spec), HOOK, tmp_path / "first")
    alone = fingerprint(random_model, small(**CACHED | change), tmp_path / "alone")
    assert fingerprint(random_model, small(**spec | change), tmp_path / "other") == alone
    assert len([*(tmp_path / "cache").iterdir()]) == 2


def test_another_hook_or_other_weights_have_their_own_folder(random_model, small, tmp_path):
    spec = small(**CACHED, cache_folder=str(tmp_path / "cache"))
    train_sae(random_model, spec, HOOK, tmp_path / "first")
    train_sae(random_model, spec, "blocks.1.hook_resid_pre", tmp_path / "hook")
    weight = random_model.blocks[0].mlp.W_in
    with torch.no_grad():
        weight[0, 0] += 1
    try:
        train_sae(random_model, spec, HOOK, tmp_path / "weights")
    finally:
        with torch.no_grad():
            weight[0, 0] -= 1
    assert len([*(tmp_path / "cache").iterdir()]) == 3


@pytest.mark.parametrize("damage", ["cut", "foreign"])
def test_a_damaged_shard_is_refused_by_name(damage, random_model, small, tmp_path):
    spec = small(**CACHED, cache_folder=str(tmp_path / "cache"))
    train_sae(random_model, spec, HOOK, tmp_path / "first")
    (file,) = (tmp_path / "cache").rglob("00000.safetensors")
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-100])
    else:
        save_file({"vectors": load_file(file)["vectors"]}, file)
    with pytest.raises(InputError, match=r"00000\.safetensors is not a shard .* delete it"):
        train_sae(random_model, spec, HOOK, tmp_path / "second")
    file.unlink()
    train_sae(random_model, spec, HOOK, tmp_path / "second")


def test_a_shard_that_does_not_continue_the_one_before_is_refused(
    random_model, small, tmp_path, passes
):
    spec = small(**CACHED, cache_folder=str(tmp_path / "cache"))
    train_sae(random_model, spec, HOOK, tmp_path / "first")
    (second,) = (tmp_path / "cache").rglob("00001.safetensors")
    third = second.with_name("00002.safetensors")
    third.write_bytes(second.read_bytes())
    with pytest.raises(InputError, match=r"00002\.safetensors does not continue"):
        train_sae(random_model, spec, HOOK, tmp_path / "second")


def test_a_corpus_that_is_too_small_is_refused_as_without_the_folder(
    random_model, small, tmp_path, passes
):
    texts = tmp_path / "texts.txt"
    texts.write_text("\n\n".join(f"The {n} words of text number {n}." for n in range(150)))
    spec = {**CACHED, "corpus": str(texts), "cached_tokens": 5000}
    kept = {**spec, "cache_folder": str(tmp_path / "cache")}
    refusals = []
    for one in (spec, kept, kept):
        with pytest.raises(InputError) as error:
            train_sae(random_model, small(**one), HOOK, tmp_path / "sae")
        refusals.append(str(error.value))
    assert "the corpus gives only" in refusals[0] and len({*refusals}) == 1
    fits = {**kept, "cached_tokens": 1500}
    for name in ("first", "second"):
        train_sae(random_model, small(**fits), HOOK, tmp_path / name)
    assert sae_fingerprint(tmp_path / "first") == sae_fingerprint(tmp_path / "second")


def test_a_grid_of_two_seeds_reads_one_corpus(random_model, small, tmp_path, passes):
    specs = {name: small(**CACHED, seed=seed) for name, seed in (("a", 0), ("b", 1))}
    grid = module.SAEGrid(random_model, specs, HOOK)
    for name in specs:
        grid.train(name, tmp_path / name)
    first, second = (sae_fingerprint(tmp_path / name) for name in specs)
    assert first != second
    assert second == fingerprint(random_model, specs["b"], tmp_path / "alone")
