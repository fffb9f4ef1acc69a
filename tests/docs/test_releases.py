"""The table of SAELens's releases: complete, and true of the files that it stands for."""

from __future__ import annotations

import json

import pytest
import torch
import yaml
from checkpoints import put_in_hub_cache, small_tokenizer
from huggingface_hub import constants
from sae_lens.loading import pretrained_sae_loaders as loaders
from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory
from safetensors import safe_open
from safetensors.torch import save_file

import saelens_steer as ss
from saelens_steer.errors import InputError
from scripts.docs.releases import judged, loads_as, notes_on, releases, releases_page, used
from scripts.docs.small_models import MODELS, hub_id, save_small
from scripts.docs.small_saes import settings_of

W, S = 32, 128
"""Widths of the residual stream and of the SAEs."""
GATES = ("r_mag", "gate_bias", "mag_bias")


def weights(**more: torch.Tensor) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    shapes = {"W_enc": (W, S), "W_dec": (S, W), "b_enc": (S,), "b_dec": (W,)}
    return {**{name: torch.randn(shape) for name, shape in shapes.items()}, **more}


def linear(**more: torch.Tensor) -> dict[str, torch.Tensor]:
    """The same under the names of torch.nn.Linear, and its way round."""
    own = weights()
    enc, dec = own["W_enc"].T.contiguous(), own["W_dec"].T.contiguous()
    return {"encoder.weight": enc, "decoder.weight": dec, "encoder.bias": own["b_enc"], **more}


def saelens(folder, path, settings):
    (folder / path).mkdir(parents=True)
    kind = {"architecture": "jumprelu"} if "matryoshka" in str(folder) else {}
    (folder / path / "cfg.json").write_text(json.dumps({**settings, **kind}))
    more = {"threshold": torch.rand(S)} if kind else {}
    save_file(weights(**more), folder / path / "sae_weights.safetensors")


def heads(folder, path, settings):
    (folder / path.replace(".pt", "_cfg.json")).write_text(json.dumps(settings))
    torch.save(weights(), folder / path)


def dictionary_learning(folder, path, settings):
    (folder / path).mkdir(parents=True)
    (folder / path / "config.json").write_text(json.dumps(settings))
    more = {"b_dec": torch.randn(W), "threshold": torch.tensor(0.3)}
    if settings["trainer"]["dict_class"] == "GatedAutoEncoder":
        more = {"decoder_bias": torch.randn(W), **{n: torch.randn(S) for n in GATES}}
    found = linear(**more)
    found.pop("encoder.bias") if "r_mag" in found else None
    torch.save(found, folder / path / "ae.pt")


def llama_scope(folder, path, settings):
    (folder / path / "checkpoints").mkdir(parents=True)
    (folder / path / "hyperparams.json").write_text(json.dumps(settings))
    found = linear(**{"decoder.bias": torch.randn(W)})
    save_file(found, folder / path / "checkpoints/final.safetensors")


def gemma_scope(folder, path, settings):
    (folder / path).mkdir(parents=True)
    found = {name.lower(): w for name, w in weights(threshold=torch.rand(S)).items()}
    skip = {"affine_skip_connection": torch.randn(W, W)} if "affine" in path else {}
    save_file({**found, **skip}, folder / path / "params.safetensors")


def mwhanna(folder, path, settings):
    for name in ("wandb-config.yaml", "config.yaml"):
        (folder / name).write_text(yaml.safe_dump(settings))
    save_file(
        {n: w.T.contiguous() if n == "W_enc" else w for n, w in weights().items()}, folder / path
    )


def qwen_scope(folder, path, settings):
    wide = torch.randn(32 * 1024, W)
    b_dec, b_enc = torch.randn(W), torch.randn(32 * 1024)
    torch.save({"W_enc": wide, "W_dec": wide.T, "b_enc": b_enc, "b_dec": b_dec}, folder / path)


def link_in_hub_cache(cache, repo_id, files):
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = cache / f"models--{repo_id.replace('/', '--')}"
    for folder in ("refs", "snapshots"):
        (repository / folder).mkdir(parents=True)
    (repository / "refs/main").write_text(commit)
    (repository / "snapshots" / commit).symlink_to(files)


REAL = {
    ("gpt2-small-resid-mid-v5-32k", "blocks.1.hook_resid_mid"): saelens,
    ("gpt2-small-res-jb", "blocks.1.hook_resid_pre"): saelens,
    ("gpt2-small-hook-z-kk", "blocks.0.hook_z"): heads,
    ("sae_bench_pythia70m_sweep_gated_ctx128_0730", "blocks.3.hook_resid_post__trainer_0"): (
        dictionary_learning
    ),
    ("gemma-2-2b-res-matryoshka-dc", "blocks.1.hook_resid_post"): saelens,
    ("gemma-scope-2-270m-it-transcoders-all", "layer_2_width_16k_l0_big_affine"): gemma_scope,
    ("llama_scope_lxa_8x", "l2a_8x"): llama_scope,
    ("llama-3.1-8b-instruct-andyrdt", "resid_post_layer_3_trainer_1"): dictionary_learning,
    ("mwhanna-qwen3-0.6b-transcoders-lowl0", "layer_1"): mwhanna,
    ("qwen-scope-3.5-2b-base-w32k-l50", "layer2"): qwen_scope,
    ("gpt-oss-20b-andyrdt", "resid_post_layer_3_trainer_0"): dictionary_learning,
}
"""Releases of different kinds → what writes their files as they lie on the hub."""


def shapes_on_disk(repo_id: str, filename: str) -> dict[str, list[int]]:
    with safe_open(loaders.hf_hub_download(repo_id, filename), framework="pt") as file:
        return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118


@pytest.mark.parametrize("source", REAL)
def test_the_verdict_is_what_loading_the_files_of_sae_and_model_gives(
    source, tmp_path, monkeypatch
):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(loaders, "get_safetensors_tensor_shapes", shapes_on_disk)
    monkeypatch.setitem(
        loaders.QWEN_SCOPE_MODEL_INFO, "Qwen3.5-2B-Base", ("Qwen/Qwen3.5-2B-Base", W)
    )
    release, sae_id = source
    entry = get_pretrained_saes_directory()[release]
    files = tmp_path / "files" / release
    files.mkdir(parents=True)
    REAL[source](files, entry.saes_map[sae_id], settings_of(release, sae_id))
    link_in_hub_cache(tmp_path / "hub", entry.repo_id, files)
    kind = MODELS[str(hub_id(entry.model))]
    small = save_small(kind, tmp_path / "model", small_tokenizer())
    put_in_hub_cache(tmp_path / "hub", str(hub_id(entry.model)), small)

    sae = ss.load_sae(release, sae_id)
    found = next(v for v in judged(release).verdicts if sae_id in v.sae_ids)
    assert found.refusal is None
    for name in (entry.model, str(sae.cfg.metadata.model_name)):
        model = ss.load_model(name)
        assert type(model).__name__ == loads_as(kind)
        reads, steers, sweeps = used(sae, model)
        assert (reads.split(".", 2)[2], steers.split(".", 2)[2]) == (found.reads, found.steers)
        assert sweeps == found.sweeps
    assert found.notes == tuple(notes_on(sae))
    assert found.kind in (sae.cfg.architecture(), "by its cfg.json")
    assert hub_id(found.named) == hub_id(str(sae.cfg.metadata.model_name)) == hub_id(entry.model)


REFUSED = {
    ("temporal-sae-llama-3.1-8b", "blocks.15.hook_resid_post"): "a temporal SAE",
    ("mntss-gemma-2-2b-2.5m-clt-as-per-layer", "layer_3"): "one layer of a cross-layer transcoder",
}


@pytest.mark.parametrize("source", REFUSED)
def test_a_release_that_the_table_calls_unusable_is_refused_in_its_words(source):
    release = judged(source[0])
    assert not release.usable and release.reasons[0].startswith(REFUSED[source])
    with pytest.raises(InputError) as refused:
        ss.load_sae(*source)
    assert str(refused.value).endswith(release.reasons[0])


def test_ids_that_no_hook_of_a_layer_reads_are_named_apart_from_the_others():
    release = judged("gemma-scope-2b-pt-res")
    unusable = [verdict for verdict in release.verdicts if verdict.refusal]
    assert release.usable and [len(verdict.sae_ids) for verdict in unusable] == [4]
    assert "'hook_embed' is not a hook of a layer" in str(unusable[0].refusal)


def test_a_release_with_two_models_says_that_the_right_one_must_be_given():
    (verdict,) = judged("gemma-scope-9b-it-res").verdicts
    assert verdict.notes == ("give `model_name`: `gemma-2-9b` or `gemma-2-9b-it`",)


@pytest.mark.slow
def test_every_release_is_in_the_table_and_160_or_more_are_usable():
    found, directory = releases(), get_pretrained_saes_directory()
    assert [release.name for release in found] == sorted(directory)
    assert sum(release.usable for release in found) >= 160
    for release in found:
        ids = sorted(i for verdict in release.verdicts for i in verdict.sae_ids)
        assert ids == sorted(directory[release.name].saes_map)
        assert all(hub_id(v.named) for v in release.verdicts if not v.refusal)
        assert release.usable or all(release.reasons)
    page = releases_page()
    for release in found:
        assert page.count(f"\n| `{release.name}` |") == 1
    assert page.count("| **no**: ") == sum(not release.usable for release in found)
