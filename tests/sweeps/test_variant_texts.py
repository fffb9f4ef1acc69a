"""Several variants in one batch write and record what each does in a batch of its own."""

from __future__ import annotations

from dataclasses import asdict

import pytest
import torch
from steering.plain_edits import F, firing_sae, our_edits

import saelens_steer as ss
from saelens_steer.config import CompareEditsSettings
from saelens_steer.data import encode_prompts
from saelens_steer.model import generate, last_token_logits, run_to_hook
from saelens_steer.steering import Edit, Variant, add_rows
from saelens_steer.steering.apply import steered, steered_shares
from saelens_steer.sweeps import MatchedPush, VariantTexts

HOOK, NEXT = "blocks.2.hook_resid_pre", "blocks.3.hook_mlp_out"
TEXTS = ["sum of two numbers", "sum of two numbers and some more of them", "a loop"]
SEED = torch.Generator().manual_seed(1)


@pytest.fixture(scope="module")
def variants(random_model):
    """Variants of every kind, which push about as hard as the residual is long."""
    tokens = torch.tensor([[5, 6, 7, 8]])
    norms = run_to_hook(random_model, tokens, torch.ones_like(tokens).bool(), HOOK).norm(dim=-1)
    sae, width = firing_sae(random_model.cfg.d_model, float(norms.mean())), norms.new_zeros(32)
    push = 2 * torch.randn(len(width), generator=SEED)
    ours = our_edits(sae, push)
    unit = torch.nn.functional.normalize(torch.randn(len(push), generator=SEED), dim=0)

    def less_mean(x):  # reads all positions of all rows that it is given
        return x - x.mean((0, 1), keepdim=True) + push

    chains = {
        "a push": {HOOK: (ours["add"],)},
        "the opposite": {HOOK: (ss.add(push, -2.0),)},
        "a splice": {HOOK: (ours["reconstruct"],)},
        "an edit of a feature": {HOOK: (ours["suppress_and_boost"],)},
        "two edits that share a pass through the SAE": {HOOK: tuple(ours["set two"])},
        "a gate": {HOOK: (ss.add(3 * push, gate=(sae, F)),)},
        "a control of a feature": {HOOK: (MatchedPush.of(unit, ours["set"]),)},
        "two hooks": {NEXT: (ss.project_out(push),), HOOK: (ours["add"], ours["project_out"])},
        "the later hook alone": {NEXT: (ss.add(push, 3.0),)},
        "not pointwise": {HOOK: (Edit("less mean", less_mean, pointwise=False),)},
        "rows of a batch": {HOOK: (add_rows(torch.randn(3, len(push), generator=SEED) * 9),)},
        "nothing": {},
    }
    return [Variant(name, edits) for name, edits in chains.items()]


def texts(model, variants, batch_size, temperature=0.0, **spec):
    settings = CompareEditsSettings(**{"max_new_tokens": 6, "batch_size": batch_size, **spec})
    prompts = encode_prompts(model.tokenizer, TEXTS)
    batch = VariantTexts.of(model, prompts, settings, temperature)
    return batch.written([(variant, i % 2) for i, variant in enumerate(variants)])


WHERE = [
    {},
    {"positions": "prompt"},
    {"positions": "generated"},
    {"positions": "last", "exclude_special_tokens": True},
    {"max_norm": 1.05},
]


GREEDY = [pytest.param(0.0, where, marks=pytest.mark.slow if where else []) for where in WHERE]


@pytest.mark.parametrize(("temperature", "where"), [*GREEDY, *((1.5, where) for where in WHERE)])
def test_texts_are_those_of_one_variant_at_a_time(random_model, variants, temperature, where):
    alone = texts(random_model, variants, 1, temperature, **where)
    for batch_size in (7, 100):
        found = texts(random_model, variants, batch_size, temperature, **where)
        for variant, new, own in zip(variants, found, alone, strict=True):
            assert new[:, : own.shape[1]].tolist() == own.tolist(), variant.name
    assert len({str(own.tolist()) for own in alone}) >= len(variants) / 2


@pytest.mark.slow
def test_texts_of_a_bridge_are_those_of_one_variant_at_a_time(random_bridge, variants):
    for temperature in (0.0, 1.5):
        alone = texts(random_bridge, variants, 1, temperature)
        together = texts(random_bridge, variants, 100, temperature)
        assert [new.tolist() for new in together] == [own.tolist() for own in alone]


def test_a_batch_holds_the_variants_that_fit(random_model, variants, monkeypatch):
    sizes, real = [], generate

    def counted(model, tokens, *rest):
        sizes.append(len(tokens))
        return real(model, tokens, *rest)

    monkeypatch.setattr("saelens_steer.sweeps.variant_texts.generate", counted)
    for batch_size, expected in ((1, [3] * 5), (8, [6, 6, 3]), (100, [15])):
        sizes.clear()
        noted = []
        settings = CompareEditsSettings(max_new_tokens=1, batch_size=batch_size)
        batch = VariantTexts.of(
            random_model, encode_prompts(random_model.tokenizer, TEXTS), settings
        )
        batch.written([(variant, 0) for variant in variants[:5]], noted.append)
        assert sizes == noted == expected


def test_each_share_has_the_receipt_and_the_sinks_of_a_batch_of_its_own(random_model, variants):
    by = {variant.name: variant.edits.get(HOOK, ()) for variant in variants}
    chains = [by[name] for name in ("a splice", "a push", "not pointwise", "a gate")]
    generator = torch.Generator().manual_seed(2)
    tokens = torch.randint(3, 80, (3, 6), generator=generator)

    def sink(x, hook):
        x[:, 2] *= 1000
        return x

    def last(edits, rows):
        with random_model.hooks(fwd_hooks=[(HOOK, sink)]), edits as receipts:
            mask = torch.ones_like(tokens).bool().repeat(rows, 1)
            return last_token_logits(random_model, tokens.repeat(rows, 1), mask), receipts

    added = [1, 0, 2]
    shares = [(slice(3 * i, 3 * i + 3), chain) for i, chain in enumerate(chains)]
    where = {"max_norm": "auto", "exclude_special_tokens": True}
    whole, found = last(steered_shares(random_model, shares, HOOK, added=added * 5, **where), 5)
    for i, (chain, receipt) in enumerate(zip(chains, found, strict=True)):
        own, expected = last(steered(random_model, list(chain), HOOK, added=added, **where), 1)
        torch.testing.assert_close(whole[3 * i : 3 * i + 3], own, atol=1e-4, rtol=1e-4)
        assert asdict(receipt) == pytest.approx(asdict(expected), rel=1e-4)
    assert found[0].positions < found[1].positions  # a splice leaves the sink alone
    plain, _ = last(random_model.hooks(), 1)
    torch.testing.assert_close(whole[12:], plain, atol=1e-4, rtol=1e-4)


def test_a_share_in_which_nothing_is_steered_is_refused(random_model):
    tokens = torch.tensor([[5, 6, 7]])
    push = [ss.add(torch.ones(random_model.cfg.d_model))]
    shares = [(slice(0, 1), push), (slice(1, 2), push)]
    mask = torch.tensor([[True, True, True], [False, False, False]])
    with (
        pytest.raises(ss.InputError, match="selected no position"),
        steered_shares(random_model, shares, HOOK, mask),
    ):
        random_model(tokens.repeat(2, 1))


@pytest.mark.parametrize("name", ("random_model", "random_bridge"))
def test_parts_of_the_rows_draw_as_in_batches_of_their_own(request, name):
    model = request.getfixturevalue(name)
    tokens = torch.tensor([[5, 6, 7], [8, 9, 10]])
    mask, state = torch.ones_like(tokens).bool(), torch.get_rng_state()
    draw = lambda rows, *seeds: generate(  # noqa: E731
        model, tokens.repeat(rows, 1), mask.repeat(rows, 1), 5, 1.0, seeds
    )
    together = draw(3, 4, 5, 4)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(together, torch.cat([draw(1, 4), draw(1, 5), draw(1, 4)]))
    assert not torch.equal(together[:2], together[2:4])
