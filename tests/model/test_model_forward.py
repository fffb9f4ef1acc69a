"""A forward pass in parts equals the whole, for both classes."""

from __future__ import annotations

import pytest
import torch
from model_batches import left_padded, rows

from saelens_steer.errors import InputError
from saelens_steer.model import last_token_logits, load_model, resid_to_last, run_to_hook, unembed


@pytest.fixture(params=["random_model", "random_bridge"])
def model(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def batch():
    return left_padded(rows())


@torch.no_grad()
def test_last_token_logits_are_those_of_the_full_forward(model, batch):
    tokens, mask = batch
    full = model(tokens, attention_mask=mask.long())[:, -1]
    assert (last_token_logits(model, tokens, mask) - full).abs().max() <= 1e-5


@torch.no_grad()
@pytest.mark.parametrize("layer", range(4))
def test_running_on_from_a_hook_is_the_full_forward(random_model, batch, layer):
    tokens, mask = batch
    resid = run_to_hook(random_model, tokens, mask, f"blocks.{layer}.hook_resid_pre")
    logits = unembed(random_model, resid_to_last(random_model, resid, mask, layer))
    full = random_model(tokens, attention_mask=mask.long())[:, -1]
    assert (logits - full).abs().max() <= 1e-5


@torch.no_grad()
def test_resid_post_is_the_next_resid_pre(model, batch):
    post = run_to_hook(model, *batch, "blocks.1.hook_resid_post")
    pre = run_to_hook(model, *batch, "blocks.2.hook_resid_pre")
    assert torch.equal(post[batch[1]], pre[batch[1]])


@torch.no_grad()
@pytest.mark.parametrize(
    "hook", ["hook_resid_mid", "hook_mlp_out", "hook_attn_out", "mlp.hook_post"]
)
def test_both_classes_read_the_same_at_a_hook(random_model, random_bridge, batch, hook):
    ours, theirs = (
        run_to_hook(m, *batch, f"blocks.2.{hook}") for m in (random_model, random_bridge)
    )
    assert (ours - theirs)[batch[1]].abs().max() <= 1e-5


def test_the_layers_above_the_hook_are_not_run(model, batch):
    seen = []
    watch = [("blocks.3.hook_resid_pre", lambda x, hook: seen.append(3))]
    with model.hooks(fwd_hooks=watch):
        run_to_hook(model, *batch, "blocks.1.hook_resid_pre")
    assert not seen


@torch.no_grad()
def test_hooks_on_the_model_act_in_every_part(model, batch):
    plain = last_token_logits(model, *batch)

    def push(x, hook):
        return x + 1.0

    with model.hooks(fwd_hooks=[("blocks.2.hook_resid_pre", push)]):
        pushed = run_to_hook(model, *batch, "blocks.3.hook_resid_pre")
        assert (last_token_logits(model, *batch) - plain).abs().max() > 1e-2
    unpushed = run_to_hook(model, *batch, "blocks.3.hook_resid_pre")
    assert (pushed - unpushed)[batch[1]].abs().max() > 1e-2
    assert torch.equal(last_token_logits(model, *batch), plain)


@torch.no_grad()
@pytest.mark.parametrize("model_class", ["HookedTransformer", "TransformerBridge"])
def test_unembedding_is_float32_even_in_bfloat16(random_folder, model_class, monkeypatch):
    monkeypatch.setattr("saelens_steer.model.forward.VOCAB_CHUNK", 100)
    half = load_model(str(random_folder), model_class=model_class, dtype="bfloat16")
    resid = torch.randn(3, 32, generator=torch.Generator().manual_seed(0)).bfloat16()
    norm = resid.float() * (resid.float().pow(2).mean(-1, keepdim=True) + 1e-6).rsqrt()
    expected = norm * half.ln_final.w.float() @ half.unembed.W_U.float()
    logits = unembed(half, resid)
    assert logits.dtype == torch.float32
    assert (logits - expected).abs().max() <= 1e-5


@torch.no_grad()
def test_only_the_last_position_of_a_bridge_is_unembedded(random_bridge, batch):
    shapes = []
    watch = [("unembed.hook_in", lambda x, hook: shapes.append(x.shape[1]))]
    with random_bridge.hooks(fwd_hooks=watch):
        last_token_logits(random_bridge, *batch)
    assert shapes in ([], [1])


def test_a_bridge_says_that_it_cannot_start_at_a_layer(random_bridge, batch):
    with pytest.raises(InputError, match="HookedTransformer"):
        resid_to_last(random_bridge, torch.zeros(4, 9, 32), batch[1], 2)


def test_what_does_not_fit_is_refused(model, random_folder):
    long = torch.full((1, model.cfg.n_ctx + 1), 5)
    with pytest.raises(InputError, match="n_ctx=512"):
        last_token_logits(model, long, torch.ones_like(long).bool())
    tokens, mask = left_padded(rows())
    with pytest.raises(InputError, match="one vector for each head"):
        run_to_hook(model, tokens, mask, "blocks.1.attn.hook_q")
