"""Laws at other hooks of width d_model: MLP and attention outputs."""

import pytest
import torch
from sae_lens import SAE
from saes import random_sae

from saelens_steer.errors import InputError
from saelens_steer.sae import sae_quality, train_sae
from saelens_steer.sae.quality import packed_contexts
from saelens_steer.sae.training import train as module

HOOKS = [f"blocks.2.hook_{name}" for name in ("mlp_out", "attn_out", "resid_mid", "resid_post")]
SIZE = 16


@pytest.fixture(scope="module")
def texts(corpus) -> list[str]:
    return corpus.read_text().split("\n\n")[:40]


@torch.no_grad()
@pytest.mark.parametrize("hook_name", HOOKS)
def test_quality_measures_what_happens_at_its_own_hook(random_model, texts, hook_name):
    sae = random_sae(random_model.cfg.d_model, hook_name)
    found = sae_quality(random_model, sae, hook_name, texts, SIZE, max_norm=None)
    tokens = packed_contexts(random_model, texts, SIZE)
    x = random_model.run_with_cache(tokens, names_filter=hook_name)[1][hook_name]
    assert x.shape == (*tokens.shape, random_model.cfg.d_model)

    def loss(replaced) -> float:
        hooks = [] if replaced is None else [(hook_name, lambda resid, hook: replaced(resid))]
        return float(random_model.run_with_hooks(tokens, return_type="loss", fwd_hooks=hooks))

    intact, spliced, zero = loss(None), loss(sae), loss(torch.zeros_like)
    assert len({round(value, 3) for value in (intact, spliced, zero)}) == 3
    assert found["mse"] == pytest.approx(float((x - sae(x)).pow(2).sum(-1).mean()), rel=1e-4)
    assert found["ce_loss"] == pytest.approx(intact, abs=1e-5)
    assert found["ce_loss_sae"] == pytest.approx(spliced, abs=1e-5)
    assert found["ce_loss_zero"] == pytest.approx(zero, abs=1e-5)
    assert found["loss_recovered"] == pytest.approx((zero - spliced) / (zero - intact), rel=1e-3)


@pytest.mark.parametrize("hook_name", HOOKS[:2])
def test_sinks_are_left_alone_at_outputs_too(random_model, texts, hook_name):
    def plant(resid, hook):
        resid = resid.clone()
        resid[:, 0] *= 1000
        return resid

    with random_model.hooks(fwd_hooks=[(hook_name, plant)]):
        sae = random_sae(random_model.cfg.d_model, hook_name)
        found = sae_quality(random_model, sae, hook_name, texts, SIZE)
    assert found["sinks_dropped"] >= len(packed_contexts(random_model, texts, SIZE))


def test_a_bridge_trains_on_the_same_activations(random_model, random_bridge, small, tmp_path):
    spec = small(training_tokens=1024, cached_tokens=512, normalize="mean_scale")
    models = {"hooked": random_model, "bridge": random_bridge}
    hooked, bridge = (
        train_sae(model, spec, HOOKS[0], tmp_path / name) for name, model in models.items()
    )
    torch.testing.assert_close(bridge.b_dec, hooked.b_dec, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("hook_name", HOOKS)
def test_an_sae_is_trained_at_its_hook_and_bears_its_name(random_model, small, tmp_path, hook_name):
    spec = small(training_tokens=1024, cached_tokens=512, normalize="mean_scale")
    train_sae(random_model, spec, hook_name, tmp_path / "sae")
    read = SAE.load_from_disk(str(tmp_path / "sae"))
    assert read.cfg.metadata.hook_name == hook_name
    assert read.cfg.d_in == random_model.cfg.d_model


@pytest.mark.parametrize("name", ["attn.hook_z", "mlp.hook_post"])
def test_hooks_of_another_width_are_refused_before_any_training(
    random_model, small, tmp_path, monkeypatch, name
):
    monkeypatch.setattr(module, "Runner", lambda *a: pytest.fail("training began"))
    with pytest.raises(InputError, match=r"cannot be used: .* hook_resid_pre.*hook_mlp_out"):
        train_sae(random_model, small(), f"blocks.2.{name}", tmp_path / "sae")
