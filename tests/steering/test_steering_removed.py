"""A steering hook that is removed inside its context is never missed in silence."""

from __future__ import annotations

import pytest
import torch

from saelens_steer.errors import InputError
from saelens_steer.steering import add, steered

HOOK = "blocks.2.hook_resid_pre"
TOKENS = torch.tensor([[5, 6, 7, 8, 9]])
PUSH = add(torch.ones(32), 1.0)


@pytest.fixture(params=["random_model", "random_bridge"])
def model(request):
    return request.getfixturevalue(request.param)


def _reset(model):
    model.reset_hooks()


def _clear(model):
    model.hook_dict[HOOK].remove_hooks("fwd", including_permanent=True, level=None)


WAYS = [_reset, _clear]


@torch.no_grad()
@pytest.mark.parametrize("remove", WAYS)
def test_the_next_pass_raises(model, remove):
    with pytest.raises(InputError, match=r"removed inside the context"), steered(model, PUSH, HOOK):
        model(TOKENS)
        remove(model)
        model(TOKENS)
        pytest.fail("went on unsteered")


@torch.no_grad()
@pytest.mark.parametrize("remove", WAYS)
def test_leaving_the_context_raises(model, remove):
    with pytest.raises(InputError, match=r"reset_hooks\(\)"), steered(model, PUSH, HOOK):
        model(TOKENS)
        remove(model)


@torch.no_grad()
def test_generation_after_it_raises(model):
    with pytest.raises(InputError, match="removed"), steered(model, PUSH, HOOK):
        model(TOKENS)
        model.reset_hooks()
        model.generate(TOKENS, max_new_tokens=3, verbose=False)


@torch.no_grad()
def test_an_error_in_the_context_is_not_hidden_by_it(model):
    with pytest.raises(KeyError), steered(model, PUSH, HOOK):
        model.reset_hooks()
        raise KeyError


@torch.no_grad()
def test_other_hooks_may_come_and_go(model):
    plain = model(TOKENS)
    with steered(model, PUSH, HOOK) as receipt:
        once = model(TOKENS)
        with model.hooks(fwd_hooks=[(HOOK, lambda x, hook: x)]):
            model(TOKENS)
        twice = model(TOKENS)
    assert receipt.passes == 3
    assert torch.equal(once, twice)
    assert torch.equal(model(TOKENS), plain)
