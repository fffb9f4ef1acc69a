"""Laws of centring folded into an SAE: it reads uncentred activations as it read centred ones."""

import warnings
from copy import deepcopy

import pytest
import torch
from sae_lens import SAE
from sae_lens.registry import get_sae_class
from transformer_lens import HookedTransformer, HookedTransformerConfig

from saelens_steer.errors import InputError
from saelens_steer.sae import (
    check_sae,
    codec,
    expects_centred,
    fold_centring,
    for_plain_weights,
    load_sae,
    save_sae,
)

D_IN, D_SAE = 12, 30
HOOK = "blocks.3.hook_resid_pre"
CASES = {
    "standard": {},
    "standard, b_dec only added": {"apply_b_dec_to_input": False},
    "gated": {},
    "gated, b_dec only added": {"apply_b_dec_to_input": False},
    "jumprelu": {},
    "topk": {"k": 5},
    "topk, in norms of the decoder": {"k": 5, "rescale_acts_by_decoder_norm": True},
    "abstopk": {"k": 5},
}


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def an_sae(case: str, **more) -> SAE:
    kind, config = get_sae_class(case.split(",")[0])
    sae = kind(config(d_in=D_IN, d_sae=D_SAE, **CASES[case], **more))
    for seed, (name, weight) in enumerate(sae.named_parameters()):
        weight.data = draw(*weight.shape, seed=seed)
        if name == "threshold":
            weight.data = weight.data.abs()
    sae.cfg.metadata.hook_name = HOOK
    sae.cfg.metadata.model_name = "gpt2-small"
    sae.cfg.metadata.model_from_pretrained_kwargs = {"center_writing_weights": True}
    return sae.requires_grad_(False).to(torch.float64)


X = 3 * draw(40, D_IN, seed=20).double() + 5 * draw(40, 1, seed=21).double()
CENTRED = X - X.mean(-1, keepdim=True)


@pytest.mark.parametrize("case", CASES)
def test_the_folded_sae_encodes_x_as_the_old_one_encoded_x_minus_its_mean(case):
    sae = an_sae(case)
    folded, wanted = fold_centring(sae), sae.encode(CENTRED)
    assert (wanted != 0).any() and not torch.allclose(sae.encode(X), wanted)
    torch.testing.assert_close(codec.encode(folded, X), wanted)


def test_loading_heeds_what_saelens_would_warn_of(tmp_path):
    sae = an_sae("standard")
    folder = save_sae(sae.float(), tmp_path / "sae")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_sae(folder).cfg.metadata.centring_folded


@pytest.mark.parametrize("case", CASES)
def test_what_it_reconstructs_has_the_mean_of_x(case):
    sae = an_sae(case)
    folded = fold_centring(sae)
    wanted = sae(CENTRED) + (X - CENTRED)
    torch.testing.assert_close(codec.through(folded, X), wanted)
    z = codec.encode(folded, X)
    z_new = z.clone()
    z_new[:, 3] += 1
    difference = codec.decode(folded, z_new, X) - codec.decode(folded, z, X)
    torch.testing.assert_close(codec.decode_change(folded, z, z_new, X), difference)


@pytest.mark.parametrize("case", CASES)
def test_a_push_and_the_original_stay_as_they_were(case):
    sae = an_sae(case)
    before = {name: weight.clone() for name, weight in sae.state_dict().items()}
    folded = fold_centring(sae)
    assert folded.W_dec.equal(sae.W_dec) and folded.b_dec.equal(sae.b_dec)
    assert all(weight.equal(before[name]) for name, weight in sae.state_dict().items())


def test_folding_is_done_once_and_is_kept_when_saved(tmp_path):
    sae = an_sae("standard").to(torch.float32)
    assert expects_centred(sae)
    folded = fold_centring(sae)
    assert not expects_centred(folded)
    with pytest.raises(InputError, match="already been folded into this SAE"):
        fold_centring(folded)
    saved = load_sae(save_sae(folded, tmp_path / "sae"))
    wanted = sae(CENTRED.float()) + (X - CENTRED).float()
    torch.testing.assert_close(codec.through(saved, X.float()), wanted, atol=1e-4, rtol=1e-4)


def test_what_load_sae_gives_reads_a_model_that_is_not_centred(tmp_path, capsys):
    sae = an_sae("standard").to(torch.float32)
    loaded = load_sae(save_sae(sae, tmp_path / "sae"))
    assert not expects_centred(loaded) and "centred weights" in capsys.readouterr().err
    wanted = sae.encode(CENTRED.float())
    torch.testing.assert_close(codec.encode(loaded, X.float()), wanted, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(codec.encode(loaded, CENTRED.float()), wanted, atol=1e-4, rtol=1e-4)


@pytest.fixture(scope="module")
def layer_norms():
    """A model with LayerNorms, random and not centred."""
    cfg = HookedTransformerConfig(
        n_layers=4, d_model=D_IN, n_ctx=32, d_head=6, d_vocab=40, act_fn="relu", device="cpu",
        normalization_type="LN", seed=0,
    )  # fmt: skip
    return HookedTransformer(cfg, move_to_device=False)


def test_an_sae_of_centred_weights_fits_only_a_centred_model(layer_norms, tmp_path):
    for normalised in ("none", "layer_norm"):
        sae = an_sae("standard", normalize_activations=normalised).to(torch.float32)
        with pytest.raises(InputError, match=r"centred weights.*load the SAE with load_sae"):
            check_sae(sae, layer_norms, HOOK)
        check_sae(sae, centred(layer_norms), HOOK)
        loaded = load_sae(save_sae(sae, tmp_path / normalised))
        if normalised == "none":
            check_sae(loaded, layer_norms, HOOK)
            check_sae(loaded, centred(layer_norms), HOOK)
        else:
            assert expects_centred(loaded)


@pytest.mark.parametrize("kind", ["RMS", "RMSPre", None])
def test_for_models_that_transformer_lens_does_not_centre_the_setting_had_no_effect(kind):
    cfg = HookedTransformerConfig(
        n_layers=4, d_model=D_IN, n_ctx=32, d_head=6, d_vocab=40, act_fn="relu", device="cpu",
        normalization_type=kind, seed=0,
    )  # fmt: skip
    model, sae = HookedTransformer(cfg, move_to_device=False), an_sae("standard").float()
    check_sae(sae, model, HOOK)
    assert for_plain_weights(sae, model) is sae
    with pytest.raises(InputError, match="folded into the SAE, which is right only"):
        check_sae(fold_centring(sae), model, HOOK)


LAYER_NORMS = [
    "gpt2",
    "gpt2-small",
    "distilgpt2",
    "pythia-70m-deduped",
    "opt-125m",
    "tiny-stories-1M",
]
OTHERS = [
    "gemma-2-2b",
    "Qwen/Qwen3-0.6B",
    "meta-llama/Llama-3.1-8B",
    "mistral-7b",
    "phi-3",
    "me/my-gpt2",
    "x",
]


@pytest.mark.parametrize("name", [*LAYER_NORMS, *OTHERS])
def test_without_the_model_only_a_known_name_shows_that_it_has_layer_norms(name, layer_norms):
    sae = an_sae("standard").float()
    sae.cfg.metadata.model_name = name
    assert expects_centred(for_plain_weights(sae)) is (name in OTHERS)
    assert not expects_centred(for_plain_weights(sae, layer_norms))


@torch.no_grad()
def centred(model: HookedTransformer) -> HookedTransformer:
    """A copy that writes only vectors of mean 0."""
    copy = deepcopy(model)
    embeddings = copy.embed.W_E, copy.pos_embed.W_pos
    for weight in (*embeddings, *(w for b in copy.blocks for w in (b.attn.W_O, b.mlp.W_out))):
        weight -= weight.mean(-1, keepdim=True)
    for bias in (b for block in copy.blocks for b in (block.attn.b_O, block.mlp.b_out)):
        bias -= bias.mean()
    return copy


@pytest.mark.parametrize("hook_name", ["blocks.3.attn.hook_z", "blocks.3.ln2.hook_normalized"])
def test_hooks_that_centring_does_not_change_need_no_folding(hook_name):
    sae = an_sae("standard")
    sae.cfg.metadata.hook_name = hook_name
    assert not expects_centred(sae)


def test_an_sae_of_an_uncentred_model_is_not_taken_for_one():
    sae = an_sae("standard")
    for given in (None, {}, {"center_writing_weights": False}, {"fold_ln": False}):
        sae.cfg.metadata.model_from_pretrained_kwargs = given
        assert not expects_centred(sae)


def test_what_cannot_be_folded_is_refused():
    kind, config = get_sae_class("matching_pursuit")
    with pytest.raises(InputError, match="cannot be folded into a matching_pursuit SAE"):
        fold_centring(kind(config(d_in=D_IN, d_sae=D_SAE)))
    with pytest.raises(InputError, match="normalises its input"):
        fold_centring(an_sae("standard", normalize_activations="constant_norm_rescale"))
