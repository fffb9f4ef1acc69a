"""A model without a tokenizer does all that needs no text, from prompts of token ids."""

import copy
import warnings

import pytest
import torch
from transformer_lens import HookedTransformer, HookedTransformerConfig

import saelens_steer as ss

HOOK = "blocks.1.hook_resid_pre"
ROWS = [[3, 4, 5, 6], [7, 8, 9], [1, 2, 3, 30, 31]]
TOKENS = [token for row in ROWS for token in row]
MARGIN = ss.margin(target=[5, 6], other=[7, 8])


@pytest.fixture(scope="module")
def bare():
    cfg = HookedTransformerConfig(
        n_layers=3, d_model=16, n_ctx=48, d_head=8, d_vocab=40, act_fn="gelu", device="cpu",
        normalization_type="LN", seed=0,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return HookedTransformer(cfg)


def push():
    return torch.randn(16, generator=torch.Generator().manual_seed(1))


def test_its_activations_are_those_of_every_token(bare):
    cached = ss.cache_activations(bare, ROWS, hook_name=HOOK, max_norm=None)
    assert cached.index["token"].tolist() == TOKENS
    assert cached.index["text"].tolist() == [str(i) for i in TOKENS]
    _, known = bare.run_with_cache(torch.tensor([ROWS[1]]), prepend_bos=False)
    torch.testing.assert_close(cached.vectors[4:7], known[HOOK][0], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_a_sweep_measures_kl_and_margins_of_token_ids(bare):
    vector = push()
    result = ss.sweep(
        bare, None, ROWS, directions={"v": vector}, hook_name=HOOK, alphas=[0, 2],
        metrics=["kl", MARGIN], n_controls=20, max_norm=None,
    )  # fmt: skip
    rows = result.rows.query("direction == 'v' and alpha == 2")
    with ss.steered(bare, ss.add(vector, 2.0), HOOK):
        logits = bare(torch.tensor([ROWS[1]]), prepend_bos=False)[0, -1]
    margin = float(logits[[5, 6]].max() - logits[[7, 8]].max())
    assert rows["margin"].tolist()[1] == pytest.approx(margin, abs=1e-4)
    assert list(result.prompts.values()) == ["3 4 5 6", "7 8 9", "1 2 3 30 31"]
    assert result.headline


@torch.no_grad()
def test_its_texts_are_token_ids(bare):
    texts = ss.generate(
        bare, ROWS, {"v": push()}, hook_name=HOOK, alphas=[0.5], max_new_tokens=4, max_norm=None
    )
    alone = bare.generate(
        torch.tensor([ROWS[1]]), max_new_tokens=4, do_sample=False, stop_at_eos=False,
        prepend_bos=False, return_type="tokens", verbose=False, use_past_kv_cache=False,
    )[0, 3:]  # fmt: skip
    original = texts[texts["variant"] == "original"]["completion"].tolist()
    assert original[1] == " ".join(map(str, alone.tolist()))
    compared = ss.compare_edits(
        bare, {"v": ss.add(push(), 0.5)}, ROWS, HOOK, metrics=["kl", MARGIN], max_new_tokens=4
    )
    assert compared[compared["variant"] == "original"]["completion"].tolist() == original
    assert bare.tokenizer is None


@pytest.mark.parametrize(
    ("call", "what"),
    [
        (lambda model, how: ss.sweep(model, None, ["text"], **how), "prompts[0], a text,"),
        (
            lambda model, how: ss.sweep(model, None, [[{"role": "user", "content": "a"}]], **how),
            "prompts[0], a text,",
        ),
        (lambda model, how: ss.cache_activations(model, ["text"]), "prompts[0], a text,"),
        (
            lambda model, how: ss.cache_activations(model, ROWS, tokens="diagnostic"),
            "tokens='diagnostic'",
        ),
        (
            lambda model, how: ss.sweep(
                model, None, ROWS, metrics=[ss.margin(target=["car"])], **how
            ),
            "a token set that is not given by ids",
        ),
        (
            lambda model, how: ss.sweep(model, None, ROWS, metrics=[ss.margin(target=[3])], **how),
            "other=None",
        ),
        (
            lambda model, how: ss.sweep(model, None, ROWS, metrics=["kl", "distinct_words"], **how),
            "distinct_words",
        ),
        (
            lambda model, how: ss.sweep(model, None, ROWS, exclude_special_tokens=True, **how),
            "exclude_special_tokens=True",
        ),
        (
            lambda model, how: ss.steered(
                model, ss.add(push()), HOOK, exclude_special_tokens=True
            ).__enter__(),
            "exclude_special_tokens=True",
        ),
        (lambda model, how: ss.suggest_alpha(model, push(), ROWS, hook_name=HOOK), "suggest_alpha"),
    ],
)
def test_what_needs_text_is_refused(bare, call, what):
    how = {"directions": {"v": push()}, "hook_name": HOOK, "n_controls": 0}
    with pytest.raises(ss.InputError, match=r"has none: set model.tokenizer") as refused:
        call(bare, how)
    assert str(refused.value).startswith(what)


def test_what_it_lacks_is_said_once(bare, capsys):
    model = copy.copy(bare)
    for _ in range(2):
        ss.cache_activations(model, ROWS, hook_name=HOOK)
    assert capsys.readouterr().err.count("no token counts as special") == 1


def test_an_unknown_token_id_is_still_refused(bare):
    with pytest.raises(ss.InputError, match="embedding has only ids 0 to 39"):
        ss.cache_activations(bare, [[3, 40]], hook_name=HOOK)
    with pytest.raises(ss.InputError, match="token id 40 is not in the vocabulary"):
        ss.sweep(
            bare, None, ROWS, directions={"v": push()}, hook_name=HOOK, n_controls=0,
            metrics=[ss.margin(target=[40], other=[3])],
        )  # fmt: skip
