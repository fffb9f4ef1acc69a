"""Laws of encoding and decoding, for every architecture and normalisation."""

import pytest
import torch
from sae_lens import SAE
from sae_lens.registry import get_sae_class
from saes import random_sae

from saelens_steer.errors import InputError
from saelens_steer.sae import codec, sae_quality

D_IN, D_SAE = 6, 15
NEAR = {"atol": 1e-5, "rtol": 1e-5}
ARCHITECTURES = {
    "standard": {},
    "standard, b_dec only added": {"apply_b_dec_to_input": False},
    "gated": {},
    "jumprelu": {},
    "topk": {"k": 4},
    "topk, in norms of the decoder": {"k": 4, "rescale_acts_by_decoder_norm": True},
    "matching_pursuit": {},
    "standard, layer_norm": {"normalize_activations": "layer_norm"},
    "topk, constant_norm_rescale": {"k": 4, "normalize_activations": "constant_norm_rescale"},
}


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def an_sae(case: str) -> SAE:
    kind, config = get_sae_class(case.split(",")[0])
    sae = kind(config(d_in=D_IN, d_sae=D_SAE, **ARCHITECTURES[case]))
    for seed, weight in enumerate(sae.parameters()):
        weight.data = draw(*weight.shape, seed=seed)
    return sae.requires_grad_(False).to(torch.float64)


def per_token(case: str = "standard", mean: torch.Tensor | None = None) -> SAE:
    sae = an_sae(case)
    sae.cfg.metadata.unit_norm_per_token = True
    sae.cfg.metadata.activation_mean = None if mean is None else mean.tolist()
    return sae


X = (5 * draw(3, 7, D_IN, seed=50) + 2).double()
MEAN = draw(D_IN, seed=51).double()


@pytest.mark.parametrize("case", ARCHITECTURES)
def test_without_unit_norm_encode_and_decode_are_saelenss(case):
    sae = an_sae(case)
    z = codec.encode(sae, X)
    assert z.equal(sae.encode(X))
    assert codec.decode(sae, z, X).equal(sae(X))


@pytest.mark.parametrize("make", [an_sae, per_token, lambda case: per_token(case, MEAN)])
@pytest.mark.parametrize("case", ARCHITECTURES)
def test_the_change_is_the_difference_of_what_is_decoded(case, make):
    sae = make(case)
    z = codec.encode(sae, X)
    z_new = z.clone()
    z_new[..., [2, 9]] = torch.tensor([0.0, 3.0]).double()
    expected = codec.decode(sae, z_new, X) - codec.decode(sae, z, X)
    torch.testing.assert_close(codec.decode_change(sae, z, z_new, X), expected, **NEAR)
    assert not codec.decode_change(sae, z, z.clone(), X).any()
    torch.testing.assert_close(
        codec.decode_change(sae, z[0, 0], z_new[0, 0], X[0, 0]), expected[0, 0], **NEAR
    )


@pytest.mark.parametrize("mean", [None, MEAN])
def test_unit_norm_is_each_tokens_own_and_undone(mean):
    sae, plain = per_token(mean=mean), an_sae("standard")
    centred = X if mean is None else X - mean
    size = centred.norm(dim=-1, keepdim=True)
    z = codec.encode(sae, X)
    torch.testing.assert_close(z, plain.encode(centred / size), **NEAR)
    expected = plain.decode(z) * size + (0 if mean is None else mean)
    torch.testing.assert_close(codec.decode(sae, z, X), expected, **NEAR)


def test_unit_norm_does_not_see_the_size_of_what_is_centred():
    sae = per_token(mean=MEAN)
    torch.testing.assert_close(
        codec.encode(sae, MEAN + 100 * (X - MEAN)), codec.encode(sae, X), **NEAR
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_vector_that_is_the_mean_is_encoded_as_nothing_of_a_direction(dtype):
    mean = MEAN.to(dtype)
    sae = per_token(mean=mean).to(dtype)
    z = codec.encode(sae, mean)
    assert z.isfinite().all()
    torch.testing.assert_close(codec.decode(sae, z, mean), mean)


def test_another_mean_or_precision_is_noticed():
    sae = per_token(mean=MEAN)
    first = codec.encode(sae, X)
    assert codec.encode(sae.to(torch.float32), X).dtype == torch.float32
    sae.cfg.metadata.activation_mean = (MEAN + 1).tolist()
    assert not torch.allclose(codec.encode(sae, X).double(), first, atol=1e-3)


def decoder_only(width: int) -> SAE:
    sae = random_sae(width)
    sae.W_enc.data.fill_(torch.nan)
    sae.cfg.metadata.decoder_only = True
    return sae


def test_whatever_needs_an_encoder_refuses_a_decoder_alone_with_one_sentence(random_model):
    from saelens_steer.activations import cache_activations
    from saelens_steer.features import select_features

    sae = decoder_only(random_model.cfg.d_model)
    hook = sae.cfg.metadata.hook_name
    acts = cache_activations(random_model, ["a + b", "two"], hook_name=hook)
    said = []
    for use in (
        lambda: codec.encode(sae, torch.zeros(sae.cfg.d_in)),
        lambda: sae_quality(random_model, sae, hook, ["some text"], 8),
        lambda: select_features(sae, acts, "code", "math"),
    ):
        with pytest.raises(InputError) as refused:
            use()
        said.append(str(refused.value))
    assert len(set(said)) == 1 and "only a decoder" in said[0]


def test_a_decoder_alone_steers_along_its_rows(random_model):
    from saelens_steer.steering import add, steered

    sae = decoder_only(random_model.cfg.d_model)
    hook, tokens = sae.cfg.metadata.hook_name, torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        before = random_model.run_with_cache(tokens, names_filter=hook)[1][hook]
        with steered(random_model, add(sae.W_dec[3], alpha=2.0), hook_name=hook):
            after = random_model.run_with_cache(tokens, names_filter=hook)[1][hook]
    torch.testing.assert_close(after - before, (2 * sae.W_dec[3]).expand_as(before), **NEAR)


def test_the_quality_of_an_sae_with_unit_norm_is_that_of_its_codec(random_model):
    width, hook = random_model.cfg.d_model, "blocks.2.hook_resid_pre"
    sae = random_sae(2 * width)  # only for its class
    sae = type(sae)(type(sae.cfg)(d_in=width, d_sae=2 * width, apply_b_dec_to_input=False))
    both = torch.cat([torch.eye(width), -torch.eye(width)])
    sae.W_dec.data, sae.W_enc.data = both, both.T.clone()
    sae.cfg.metadata.unit_norm_per_token = True
    sae.cfg.metadata.activation_mean = [0.5] * width
    found = sae_quality(random_model, sae, hook, ["some text " * 30], 16)
    assert found["explained_variance"] == pytest.approx(1, abs=1e-5)
    assert found["loss_recovered"] == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("case", ["standard", "jumprelu", "topk"])
def test_an_sae_of_all_heads_encodes_one_vector_as_saelens_encodes_heads(case):
    joined, sae = an_sae(case), an_sae(case)
    sae.turn_on_forward_pass_hook_z_reshaping()
    for _ in range(2):
        z = codec.encode(sae, X)
        assert z.equal(joined.encode(X))
        assert codec.decode(sae, z, X).equal(joined(X))
        assert sae(X.unflatten(-1, (2, -1))).flatten(-2).allclose(joined(X))
