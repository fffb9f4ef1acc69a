"""Models that the user made with TransformerLens go wherever a loaded one goes."""

from __future__ import annotations

import warnings

import pytest
import torch
from checkpoints_any import random_checkpoint
from model_batches import left_padded, rows
from sae_lens import HookedSAETransformer, StandardSAE, StandardSAEConfig
from sae_lens.saes.sae import SAEMetadata
from transformer_lens import HookedTransformer, HookedTransformerConfig
from transformer_lens.model_bridge import TransformerBridge

from saelens_steer.errors import InputError
from saelens_steer.model import (
    default_hook_name,
    direct_logits,
    generate,
    last_token_logits,
    load_model,
    reading_direction,
    resid_gradient,
    run_to_hook,
    stop_token_ids,
    subtracts_mean,
    writes_centred,
)
from saelens_steer.steering import add, steered

KINDS = ["gpt2", "neox", "opt", "qwen3", "gemma2"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("given")
    return {name: random_checkpoint(name, root / name) for name in KINDS}


@pytest.fixture(scope="module", params=KINDS)
def folder(request, folders):
    return folders[request.param]


@pytest.fixture(scope="module")
def plain(folder):
    return load_model(folder)


def _processed(folder) -> HookedTransformer:
    """As `HookedTransformer.from_pretrained` makes it: folded and, for LayerNorms, centred."""
    model = load_model(folder)
    assert isinstance(model, HookedTransformer)
    model.process_weights_()
    return model


def _compatible(folder) -> TransformerBridge:
    bridge = TransformerBridge.boot_transformers(str(folder), device="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bridge.enable_compatibility_mode(disable_warnings=True)
    return bridge


@pytest.fixture(scope="module", params=[_processed, _compatible], ids=["hooked", "bridge"])
def processed(request, folder):
    return request.param(folder)


def _apart(ours, theirs) -> float:
    return float(((ours - theirs).norm(dim=-1) / theirs.norm(dim=-1)).max())


@torch.no_grad()
def test_processing_changes_no_probability(plain, processed):
    tokens, mask = left_padded(rows())
    ours, theirs = (last_token_logits(m, tokens, mask).log_softmax(-1) for m in (processed, plain))
    assert _apart(ours, theirs) <= 1e-4


@torch.no_grad()
def test_the_last_logits_are_those_of_the_models_own_pass(processed):
    tokens, mask = left_padded(rows())
    whole = processed(tokens, attention_mask=mask.long())[:, -1]
    assert _apart(last_token_logits(processed, tokens, mask), whole) <= 1e-5


def test_greedy_text_and_stop_tokens_survive_processing(plain, processed):
    tokens, mask = left_padded(rows())
    assert torch.equal(generate(processed, tokens, mask, 5), generate(plain, tokens, mask, 5))
    assert set(stop_token_ids(processed)) <= set(stop_token_ids(plain))


@torch.no_grad()
def test_a_direction_has_the_same_logit_lens_folded_or_not(plain, processed):
    vectors = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    ours, theirs = direct_logits(processed, vectors), direct_logits(plain, vectors)
    assert _apart(ours, theirs) <= 1e-5


@torch.no_grad()
def test_the_logit_lens_is_the_derivative_of_the_logits_by_the_final_residual(plain):
    """Along v ⟂ x the norm of x stays, so logits move by the lens of v, up to one factor."""
    from saelens_steer.model.forward import unembed

    if plain.cfg.output_logits_soft_cap > 0:
        pytest.skip("a soft cap bends the logits")
    draw = torch.Generator().manual_seed(0)
    x, v = torch.randn(2, 32, generator=draw).double().float()
    centred = x - x.mean() if plain.cfg.normalization_type == "LN" else x
    v = v - (v @ centred) / (centred @ centred) * centred
    step = 1e-2
    moved = (unembed(plain, (x + step * v)[None]) - unembed(plain, (x - step * v)[None])) / step
    moved = moved - moved.mean(dim=1, keepdim=True)
    lens = direct_logits(plain, v[None])
    factor = (moved @ lens.T) / (lens @ lens.T)
    assert _apart(moved, factor * lens) <= 1e-2
    ids = torch.tensor([3, 7, 11])
    W = plain.unembed.W_U.float()
    centred_v = v - v.mean() if plain.cfg.normalization_type == "LN" else v
    expected = ((centred_v * plain.ln_final.w) @ W)[ids].mean()
    assert float(reading_direction(plain, ids) @ v) == pytest.approx(float(expected), rel=1e-4)


def test_a_push_and_a_gradient_at_a_hook_work_on_processed_models(processed):
    tokens, mask = left_padded(rows())
    hook = default_hook_name(processed)
    push = torch.randn(32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad(), steered(processed, add(push, 1.0), hook):
        pushed = last_token_logits(processed, tokens, mask)
    by_hand = [(hook, lambda x, hook: x + push)]
    with torch.no_grad(), processed.hooks(fwd_hooks=by_hand):
        expected = processed(tokens, attention_mask=mask.long())[:, -1]
    assert _apart(pushed, expected) <= 1e-4
    (alone,), real = rows()[:1], torch.ones(1, 9).bool()
    gradient = resid_gradient(processed, alone, real, hook, lambda logits: logits[:, 3])
    assert gradient.abs().sum() > 0


def test_a_gradient_of_padded_rows_is_right_or_refused(plain, processed):
    tokens, mask = left_padded(rows())
    hook = default_hook_name(processed)

    def of(logits):
        return logits.log_softmax(-1)[:, 3]

    try:
        ours = resid_gradient(processed, tokens, mask, hook, of)
    except InputError as error:
        assert isinstance(processed, TransformerBridge) and "prompts of the same length" in str(
            error
        )
        return
    theirs = resid_gradient(plain, tokens, mask, hook, of)
    if plain.cfg.normalization_type == "LN":  # a centred stream has no gradient along ones
        theirs = theirs - theirs.mean(dim=-1, keepdim=True)
        ours = ours - ours.mean(dim=-1, keepdim=True)
    capped = plain.cfg.output_logits_soft_cap > 0  # centring the unembedding is not exact under it
    assert _apart(ours[mask], theirs[mask]) <= (1e-2 if capped else 1e-3)


def test_centred_weights_are_measured_and_only_layer_norms_have_them(plain, processed):
    assert writes_centred(processed) is subtracts_mean(processed) is subtracts_mean(plain)
    assert not writes_centred(plain)


@pytest.mark.parametrize("part", ["center_writing_weights", "center_unembed", "fold_ln"])
def test_no_other_way_of_processing_is_taken_for_centred_weights(folders, part):
    model = load_model(folders["gpt2"])
    ways = ["fold_ln", "center_writing_weights", "center_unembed"]
    model.process_weights_(**{way: way == part for way in ways})
    assert writes_centred(model) is (part == "center_writing_weights")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("width", [64, 256, 768])
def test_centred_weights_are_seen_through_the_rounding_of_each_dtype(width, dtype):
    cfg = HookedTransformerConfig(
        n_layers=3, d_model=width, n_ctx=16, d_head=32, d_vocab=60, act_fn="gelu_new",
        normalization_type="LN", device="cpu", seed=0,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        model = HookedTransformer(cfg)
    assert not writes_centred(model.to(dtype))
    model.to(torch.float32).process_weights_(center_unembed=False, fold_ln=False)
    assert writes_centred(model.to(dtype))


@torch.no_grad()
def test_a_model_without_norms_or_tokenizer_is_read_and_steered():
    cfg = HookedTransformerConfig(
        n_layers=2, d_model=16, n_ctx=32, d_head=8, d_vocab=40, act_fn="relu", device="cpu",
        normalization_type=None, seed=0,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        model = HookedTransformer(cfg)
    tokens = torch.tensor([[3, 4, 5]])
    whole = model(tokens)[:, -1]
    assert _apart(last_token_logits(model, tokens, tokens > 0), whole) <= 1e-5
    assert direct_logits(model, torch.randn(2, 16)).shape == (2, 40)
    padded, mask = torch.tensor([[0, 3, 4, 5], [6, 7, 8, 9]]), torch.ones(2, 4, dtype=torch.bool)
    mask[0, 0] = False
    assert torch.equal(generate(model, padded, mask, 2)[:1], generate(model, tokens, tokens > 0, 2))
    assert model.tokenizer is None


@torch.no_grad()
def test_right_padding_of_a_given_tokenizer_does_not_reach_generation(folders):
    model = _processed(folders["gpt2"])
    tokens, mask = left_padded(rows())
    left = generate(model, tokens, mask, 5)
    model.tokenizer.padding_side = "right"
    assert torch.equal(generate(model, tokens, mask, 5), left)
    assert model.tokenizer.padding_side == "right"


@torch.no_grad()
def test_a_model_with_saes_attached_is_refused_with_the_way_round(folders):
    loaded = load_model(folders["gpt2"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        model = HookedSAETransformer(loaded.cfg)
    model.load_state_dict(loaded.state_dict())
    model.tokenizer = loaded.tokenizer
    hook = "blocks.1.hook_resid_pre"
    sae = StandardSAE(StandardSAEConfig(d_in=32, d_sae=64, metadata=SAEMetadata(hook_name=hook)))
    tokens, mask = left_padded(rows())
    plain = run_to_hook(model, tokens, mask, hook)
    model.add_sae(sae)
    for use in (
        lambda: run_to_hook(model, tokens, mask, "blocks.2.hook_resid_pre"),
        lambda: steered(model, add(torch.ones(32)), hook).__enter__(),
    ):
        with pytest.raises(InputError, match=r"reset_saes\(\)"):
            use()
    model.reset_saes()
    assert torch.equal(run_to_hook(model, tokens, mask, hook), plain)
