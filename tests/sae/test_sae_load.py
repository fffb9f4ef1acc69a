"""Laws of loading: existing SAEs load unchanged, and wrong names get a hint."""

import json
from pathlib import Path

import pytest
import torch
from sae_lens import SAE
from sae_lens.saes.standard_sae import StandardSAE, StandardSAEConfig

from saelens_steer.errors import InputError
from saelens_steer.model import same_places
from saelens_steer.sae import check_feature, check_sae, check_sae_at, load_sae, sae_fingerprint
from saelens_steer.sae import load as module

HOOK = "blocks.2.hook_resid_pre"
RELEASE = "gpt2-small-res-jb"


def an_sae(d_in: int = 32, hook_name: str | None = HOOK) -> SAE:
    sae = StandardSAE(StandardSAEConfig(d_in=d_in, d_sae=40))
    draw = torch.Generator().manual_seed(0)
    for weight in sae.parameters():
        weight.data = torch.randn(weight.shape, generator=draw)
    sae.cfg.metadata.hook_name = hook_name
    return sae


@pytest.fixture
def saved(tmp_path) -> Path:
    an_sae().save_model(str(tmp_path / "sae"))
    return tmp_path / "sae"


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("no network here\nand a second line")

    monkeypatch.setattr("socket.socket.connect", fail)


def test_a_folder_is_loaded_as_it_was_saved(saved):
    sae = load_sae(saved)
    assert isinstance(sae, SAE) and sae.cfg.metadata.hook_name == HOOK
    for name, weight in an_sae().state_dict().items():
        assert sae.state_dict()[name].equal(weight)
    assert load_sae(str(saved)).cfg.d_sae == 40


def test_the_folder_may_be_below_the_home_folder(saved, monkeypatch):
    monkeypatch.setenv("HOME", str(saved.parent))
    assert load_sae("~/sae").cfg.d_in == 32


def broken(saved: Path, case: str) -> None:
    weights, config = saved / "sae_weights.safetensors", saved / "cfg.json"
    settings = json.loads(config.read_text())
    if case == "no config":
        config.unlink()
    elif case == "no weights":
        weights.unlink()
    elif case == "half the weights":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif case == "a config that is no JSON":
        config.write_text("{")
    elif case == "a config of something else":
        config.write_text('{"model_type": "qwen3"}')
    elif case == "a config of other widths":
        config.write_text(json.dumps(settings | {"d_in": 16}))
    elif case == "an unknown architecture":
        config.write_text(json.dumps(settings | {"architecture": "nonesuch"}))


@pytest.mark.parametrize(
    "case",
    [
        "no config",
        "no weights",
        "half the weights",
        "a config that is no JSON",
        "a config of something else",
        "a config of other widths",
        "an unknown architecture",
    ],
)
def test_a_folder_that_is_not_whole_is_refused_in_one_sentence(saved, case):
    broken(saved, case)
    with pytest.raises(InputError) as refused:
        load_sae(saved)
    assert str(saved) in str(refused.value) and "\n" not in str(refused.value)


def test_a_folder_with_an_sae_id_is_refused(saved):
    with pytest.raises(InputError, match="may hold only one SAE: leave out sae_id"):
        load_sae(saved, "blocks.2")


def test_an_unknown_folder_or_release_is_refused_with_the_nearest(tmp_path):
    with pytest.raises(InputError, match="not an existing file or folder, a SAELens release"):
        load_sae(tmp_path / "nowhere")
    with pytest.raises(InputError, match=f"SAELens has .*{RELEASE}"):
        load_sae("gpt2-small-res-jbb", "x")


def test_an_unknown_id_is_refused_with_the_nearest():
    with pytest.raises(InputError, match=r"no sae_id 'blocks\.8\.hook_resid_pr'; try .*pre"):
        load_sae(RELEASE, "blocks.8.hook_resid_pr")
    with pytest.raises(InputError, match=r"needs an sae_id; try blocks\."):
        load_sae(RELEASE)


def test_a_release_that_cannot_be_fetched_is_refused_in_one_sentence(monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("cannot reach the hub\nand a second line")

    monkeypatch.setattr(module.SAE, "from_pretrained", fail)
    with pytest.raises(InputError, match=r"cannot fetch .* not cached: cannot reach") as refused:
        load_sae(RELEASE, "blocks.8.hook_resid_pre")
    assert "\n" not in str(refused.value)


def test_without_a_network_a_release_is_refused_and_nothing_crashes(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match="cannot fetch"):
        load_sae(RELEASE, "blocks.8.hook_resid_pre")


def test_an_sae_of_another_width_or_hook_is_refused(random_model):
    check_sae(an_sae(), random_model, HOOK)
    with pytest.raises(InputError, match="the SAE reads 16 dimensions, but activations have 32"):
        check_sae(an_sae(d_in=16), random_model, HOOK)
    with pytest.raises(InputError, match=r"was made for blocks\.2\.hook_resid_pre, not for"):
        check_sae(an_sae(), random_model, "blocks.1.hook_resid_pre")


def test_an_sae_without_a_hook_fits_every_hook_of_its_width(random_model):
    check_sae(an_sae(hook_name=None), random_model, "blocks.1.hook_resid_pre")
    check_sae_at(an_sae(), 32, HOOK)


@pytest.mark.parametrize("layer", [0, 3, 30])
def test_after_a_layer_and_before_the_next_is_one_place(layer):
    after, before = f"blocks.{layer}.hook_resid_post", f"blocks.{layer + 1}.hook_resid_pre"
    for made_for in (after, before):
        for hook_name in (after, before):
            check_sae_at(an_sae(hook_name=made_for), 32, hook_name)
        with pytest.raises(InputError, match=f"use .*{before}") as refused:
            check_sae_at(an_sae(hook_name=made_for), 32, f"blocks.{layer + 1}.hook_resid_post")
        assert after in str(refused.value)
    assert set(same_places(after)) == set(same_places(before)) == {after, before}


@pytest.mark.parametrize("hook_name", ["blocks.0.hook_resid_pre", "blocks.3.hook_mlp_out", "x"])
def test_other_hooks_are_a_place_of_their_own(hook_name):
    assert same_places(hook_name) == (hook_name,)


@pytest.mark.parametrize("feature", [-1, 40, 10**9])
def test_a_feature_out_of_range_is_refused(feature):
    with pytest.raises(InputError, match=f"feature {feature} is out of range: .* 0 to 39"):
        check_feature(an_sae(), feature)


def test_a_feature_in_range_is_returned():
    assert [check_feature(an_sae(), f) for f in (0, 39)] == [0, 39]


def test_the_fingerprint_depends_on_config_and_weights_alone(saved, tmp_path):
    known = sae_fingerprint(saved)
    (saved / "quality.json").write_text("{}")
    assert sae_fingerprint(saved) == known
    other = an_sae()
    other.b_dec.data[0] += 1
    other.save_model(str(tmp_path / "other"))
    assert sae_fingerprint(tmp_path / "other") != known


def test_the_models_width_settles_shapes_that_are_ambiguous_without_it(random_model, tmp_path):
    torch.save({"dictionary": torch.randn(32, 40)}, tmp_path / "sae.pt")
    with pytest.raises(InputError, match="give the model's width as d_model"):
        load_sae(tmp_path / "sae.pt")
    assert load_sae(tmp_path / "sae.pt", model=random_model).W_dec.shape == (40, 32)
