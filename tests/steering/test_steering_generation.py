"""Every edit at every kind of position means the same with and without a KV cache."""

from __future__ import annotations

import pytest
import torch
from model.model_batches import left_padded, rows
from plain_edits import EDITS, firing_sae, our_edits

from saelens_steer.errors import InputError
from saelens_steer.model import generate, run_to_hook
from saelens_steer.steering import Edit, add, per_row, reconstruct, steered

HOOK = "blocks.2.hook_resid_pre"
SPECIAL, N_NEW = 1, 4
"""A special token of the test tokenizer, and the tokens to be generated."""


@pytest.fixture(scope="module", params=("HookedTransformer", "TransformerBridge"))
def model(request):
    name = {"HookedTransformer": "random_model", "TransformerBridge": "random_bridge"}
    return request.getfixturevalue(name[request.param])


@pytest.fixture(scope="module")
def prompts():
    """Three left-padded prompts; two hold a special token in their middle."""
    longer = rows()[:3]
    longer[0][0, 3] = longer[2][0, 2] = SPECIAL
    return left_padded(longer)


@pytest.fixture(scope="module")
def edits(random_model, prompts):
    """Edits whose size is that of the residual."""
    size = run_to_hook(random_model, *prompts, HOOK)[prompts[1]].norm(dim=-1).mean()
    width = random_model.cfg.d_model
    push = torch.randn(width, generator=torch.Generator().manual_seed(1))
    return our_edits(firing_sae(width, float(size)), push * size / push.norm())


def written(model, tokens, cached: bool) -> torch.Tensor:
    return model.generate(
        tokens,
        max_new_tokens=N_NEW,
        do_sample=False,
        stop_at_eos=False,
        verbose=False,
        use_past_kv_cache=cached,
        padding_side="left",
        return_type="tokens",
    )


POSITIONS = {
    "all": {},
    "prompt": {"positions": "prompt"},
    "generated": {"positions": "generated"},
    "last": {"positions": "last"},
    "no special tokens": {"exclude_special_tokens": True},
    "no sinks": {"max_norm": 1.1},
    "neither": {"exclude_special_tokens": True, "max_norm": 1.1, "positions": "prompt"},
}


@pytest.mark.parametrize("where", POSITIONS)
@pytest.mark.parametrize("name", EDITS)
def test_with_and_without_a_cache_the_same_tokens_and_positions(model, edits, prompts, name, where):
    texts, counts = [], []
    for cached in (True, False):
        with steered(model, edits[name], HOOK, **POSITIONS[where]) as receipt:
            texts.append(written(model, prompts[0], cached))
        counts.append(receipt.positions)
    assert torch.equal(*texts)
    expected = {"all": 19 + 3 * (N_NEW - 1), "prompt": 19, "generated": 3 * (N_NEW - 1), "last": 3}
    if where in expected:
        assert counts[0] == expected[where]
    if where == "no special tokens":
        specials = int((texts[0][:, :-1] <= 2).logical_and(texts[0][:, :-1] >= 1).sum())
        assert counts[0] <= expected["all"] - 2
        assert specials >= 2


def test_a_mask_means_the_same_with_and_without_a_cache(model, edits, prompts):
    mask = torch.zeros_like(prompts[1])
    mask[:, 5:8] = True
    with steered(model, edits["add"], HOOK, mask) as receipt:
        cached = written(model, prompts[0], True)
    assert receipt.positions == 9
    with steered(model, edits["add"], HOOK, mask):
        assert torch.equal(written(model, prompts[0], False), cached)


def test_special_tokens_are_left_alone_wherever_they_stand(model, edits, prompts):
    seen: list[torch.Tensor] = []
    spy = Edit("spy", lambda x: seen.append(x) or x + 1.0, pointwise=False)
    with steered(model, spy, HOOK, exclude_special_tokens=True) as receipt, torch.no_grad():
        model(prompts[0], attention_mask=prompts[1].long())
    assert receipt.positions == 19 - 2 == receipt.changed


def test_sinks_are_left_alone_by_the_norms_of_their_own_prompt(model, prompts):
    resid = run_to_hook(model, *prompts, HOOK)
    norms = resid.norm(dim=-1).masked_fill(~prompts[1], torch.nan)
    limits = 1.1 * norms.nanmedian(dim=1).values
    ordinary = int((norms <= limits[:, None]).sum())
    assert 3 < ordinary < 19
    push = add(torch.ones(model.cfg.d_model))
    with steered(model, push, HOOK, max_norm=1.1) as receipt, torch.no_grad():
        model(prompts[0], attention_mask=prompts[1].long())
    assert receipt.positions == ordinary


def test_a_splice_leaves_sinks_alone_by_default_and_a_push_does_not(model, prompts):
    big = Edit("sink", lambda x: 100.0 * x)
    first = torch.zeros_like(prompts[1])
    first[:, -1] = True
    sae = firing_sae(model.cfg.d_model)
    for edit, positions in ((reconstruct(sae), 19 - 3), (add(torch.ones(model.cfg.d_model)), 19)):
        with (
            steered(model, big, HOOK, first),
            steered(model, edit, HOOK) as receipt,
            torch.no_grad(),
        ):
            model(prompts[0], attention_mask=prompts[1].long())
        assert receipt.positions == positions


def test_special_tokens_need_a_pass_that_begins_with_tokens(random_model, prompts):
    resid = run_to_hook(random_model, *prompts, HOOK)
    push = add(torch.ones(random_model.cfg.d_model))
    with (
        pytest.raises(InputError, match="starts from tokens"),
        steered(random_model, push, HOOK, exclude_special_tokens=True),
        torch.no_grad(),
    ):
        random_model(resid, start_at_layer=2)


@pytest.mark.parametrize("positions", ("all", "prompt", "generated", "last"))
def test_a_batch_of_mixed_edits_writes_what_each_row_writes_alone(model, edits, positions):
    tokens, mask = left_padded([rows()[0]] * len(EDITS))
    single = {name: e[0] if isinstance(e, list) else e for name, e in edits.items()}
    mixed = per_row([single[name] for name in EDITS])
    with steered(model, mixed, HOOK, positions):
        together = generate(model, tokens, mask, N_NEW)
    for row, name in enumerate(EDITS):
        with steered(model, single[name], HOOK, positions, max_norm=None):
            alone = generate(model, tokens[[row]], mask[[row]], N_NEW)
        assert torch.equal(together[row, : alone.shape[1]], alone[0]), name
    assert len({tuple(row) for row in together.tolist()}) > 1
