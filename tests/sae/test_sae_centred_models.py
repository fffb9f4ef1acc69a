"""An SAE of centred activations on a model that is centred, and on one that is not."""

import pytest
import torch
from checkpoints_any import random_checkpoint
from saes import random_sae

import saelens_steer as ss
from saelens_steer.errors import InputError
from saelens_steer.model import load_model, run_to_hook
from saelens_steer.sae import check_sae, encode, for_plain_weights

HOOK = "blocks.1.hook_resid_pre"


@pytest.fixture(scope="module", params=["gpt2", "opt"])
def models(request, tmp_path_factory):
    folder = random_checkpoint(request.param, tmp_path_factory.mktemp("models") / request.param)
    centred = load_model(folder)
    centred.process_weights_()
    return load_model(folder), centred


@pytest.fixture
def sae():
    made = random_sae(32)
    made.cfg.metadata.hook_name = HOOK
    made.cfg.metadata.model_from_pretrained_kwargs = {"center_writing_weights": True}
    return made


def activations(model):
    tokens = torch.arange(1, 25).view(3, 8)
    return run_to_hook(model, tokens, torch.ones_like(tokens, dtype=torch.bool), HOOK).flatten(0, 1)


def test_on_the_plain_model_the_folded_sae_fires_as_the_sae_did_on_the_centred_one(models, sae):
    plain, centred = models
    wanted = encode(sae, activations(centred))
    found = encode(for_plain_weights(sae, plain), activations(plain))
    assert (wanted > 0).any()
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)


def test_on_the_centred_model_both_fire_alike(models, sae):
    x = activations(models[1])
    found = encode(for_plain_weights(sae, models[1]), x)
    torch.testing.assert_close(found, encode(sae, x), rtol=1e-3, atol=1e-3)
    check_sae(sae, models[1], HOOK)


def test_unfolded_it_is_refused_on_a_model_that_is_not_centred(models, sae):
    plain = models[0]
    with pytest.raises(InputError, match="centred"):
        check_sae(sae, plain, HOOK)
    with (
        pytest.raises(InputError, match="centred"),
        ss.steered(plain, ss.ablate(sae, 3), HOOK),
    ):
        plain(torch.tensor([[1, 2, 3]]))
    check_sae(for_plain_weights(sae, plain), plain, HOOK)


def test_at_a_hook_that_centring_leaves_alone_nothing_is_asked(models, sae):
    sae.cfg.metadata.hook_name = "blocks.1.ln1.hook_normalized"
    assert for_plain_weights(sae, models[0]) is sae
