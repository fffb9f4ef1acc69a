"""Laws of the hook that an SAE is used at: its own or the one given, never the middle layer."""

import pytest
import torch
from saes import random_sae

import saelens_steer as ss
from saelens_steer.errors import InputError
from saelens_steer.pipeline.arguments import hook_of
from saelens_steer.sae import check_sae

HOOK = "blocks.1.hook_resid_pre"


def test_an_sae_without_a_hook_is_refused_before_any_pass(random_model, monkeypatch):
    sae = random_sae(random_model.cfg.d_model, hook_name=None)
    monkeypatch.setattr(type(random_model), "forward", lambda *a, **g: pytest.fail("a pass"))
    with pytest.raises(InputError, match="does not say which hook it reads: give it as hook_name="):
        ss.sweep(random_model, sae, ["some text"], features=[1], alphas=[0, 1], n_controls=3)
    assert hook_of(random_model, sae, HOOK) == HOOK


def test_an_sae_is_used_at_its_own_hook_and_no_other(random_model):
    sae = random_sae(random_model.cfg.d_model, HOOK)
    assert hook_of(random_model, sae, None) == hook_of(random_model, sae, HOOK) == HOOK
    with pytest.raises(InputError, match=r"was made for blocks\.1\.hook_resid_pre, not for"):
        hook_of(random_model, sae, "blocks.2.hook_resid_pre")


@pytest.mark.parametrize("word", ["layers.1.mlp", "model.layers.1.mlp.output", "h.1.mlp"])
def test_a_modules_output_is_not_taken_for_what_its_norm_makes_of_it(
    random_model, monkeypatch, word
):
    sae = random_sae(random_model.cfg.d_model, "blocks.1.hook_mlp_out")
    sae.cfg.metadata.hf_hook_name = word
    check_sae(sae, random_model, "blocks.1.hook_mlp_out")
    monkeypatch.setattr(random_model.cfg, "use_normalization_before_and_after", True)
    with pytest.raises(InputError, match=r"which a norm follows in this model.*mlp\.hook_out"):
        check_sae(sae, random_model, "blocks.1.hook_mlp_out")
    sae.cfg.metadata.hf_hook_name = "model.layers.1.post_feedforward_layernorm.output"
    check_sae(sae, random_model, "blocks.1.hook_mlp_out")


def test_a_sweep_steers_at_the_hook_of_a_checkpoint_in_another_format(random_model, tmp_path):
    d_model, draw = random_model.cfg.d_model, torch.Generator().manual_seed(0)
    weights = {"W_dec": torch.randn(24, d_model, generator=draw)}
    weights["W_enc"] = weights["W_dec"].T.contiguous()
    (tmp_path / "resid_post_layer_0").mkdir()
    content = weights | {"k": 4, "b_dec": torch.zeros(d_model)}
    torch.save(content, tmp_path / "resid_post_layer_0/ae.pt")
    sae = ss.load_sae(tmp_path / "resid_post_layer_0")
    found = ss.sweep(random_model, sae, ["some text"], features=[1], alphas=[0, 1], n_controls=3)
    assert set(found.rows.hook_name) == {"blocks.0.hook_resid_post"}
