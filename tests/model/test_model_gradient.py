"""Gradients at a hook, and direct logits, against finite differences and the unembedding."""

import torch

from saelens_steer.model import direct_logits, last_token_logits, resid_gradient, unembed

HOOK = "blocks.2.hook_resid_pre"


def prompts(model):
    tokens = torch.tensor([[0, 0, 5, 9, 11], [7, 8, 3, 2, 4]])
    mask = torch.tensor([[False, False, True, True, True], [True] * 5])
    return tokens, mask


def outcome(logits):
    return logits[:, 3] - logits[:, 6]


def pushed(model, tokens, mask, position, step):
    def hook(x, hook):
        x = x.clone()
        x[:, position] += step
        return x

    with model.hooks(fwd_hooks=[(HOOK, hook)]):
        return outcome(last_token_logits(model, tokens, mask))


def test_the_gradient_is_that_of_finite_differences_at_every_position(random_model):
    tokens, mask = prompts(random_model)
    gradient = resid_gradient(random_model, tokens, mask, HOOK, outcome)
    draw = torch.Generator().manual_seed(0)
    direction = torch.randn(random_model.cfg.d_model, generator=draw)
    for position in range(tokens.shape[1]):
        up, down = (
            pushed(random_model, tokens, mask, position, h * direction) for h in (0.01, -0.01)
        )
        slope = (up - down) / 0.02
        want = torch.where(mask[:, position], slope, 0.0)
        torch.testing.assert_close(gradient[:, position] @ direction, want, atol=2e-3, rtol=2e-2)


def test_both_classes_have_the_same_gradient(random_model, random_bridge):
    tokens, mask = prompts(random_model)
    ours, bridged = (
        resid_gradient(model, tokens, mask, HOOK, outcome)
        for model in (random_model, random_bridge)
    )
    torch.testing.assert_close(ours, bridged, atol=1e-4, rtol=1e-3)


def test_no_hook_and_no_gradient_is_left_behind(random_model):
    tokens, mask = prompts(random_model)
    before = last_token_logits(random_model, tokens, mask)
    resid_gradient(random_model, tokens, mask, HOOK, outcome)
    assert all(p.grad is None for p in random_model.parameters())
    assert torch.equal(last_token_logits(random_model, tokens, mask), before)


def test_direct_logits_are_what_a_push_adds_where_the_norm_is_held(random_model):
    draw = torch.Generator().manual_seed(1)
    x, v = torch.randn(2, random_model.cfg.d_model, generator=draw)
    v = v - (v @ x) / (x @ x) * x  # the norm changes to second order only
    h = 1e-2
    change = (unembed(random_model, (x + h * v)[None]) - unembed(random_model, x[None]))[0] / h
    scale = (x.pow(2).mean() + random_model.cfg.eps).sqrt()
    want = direct_logits(random_model, v[None])[0] / scale
    torch.testing.assert_close(change - change.mean(), want, atol=5e-2, rtol=5e-2)
