"""What a new user gives wrongly is refused in a sentence, or said in the result."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
import torch
from saes import random_sae

import saelens_steer as ss

HOOK = "blocks.2.hook_resid_pre"
TEXTS = ["add two numbers", "sort a list"]
pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.fixture
def vector(random_model) -> torch.Tensor:
    return torch.ones(random_model.cfg.d_model)


@pytest.mark.parametrize("hook_name", [4, ("blocks.2.hook_resid_pre",), 2.5])
def test_a_hook_is_a_name(random_model, vector, hook_name):
    sae = random_sae(random_model.cfg.d_model, HOOK)
    calls = [
        lambda: ss.sweep(random_model, None, TEXTS, directions=vector, hook_name=hook_name),
        lambda: ss.generate(random_model, TEXTS, {"v": vector}, hook_name=hook_name),
        lambda: ss.cache_activations(random_model, TEXTS, hook_name=hook_name),
        lambda: ss.sweep(random_model, sae, TEXTS, features=3, hook_name=hook_name),
        lambda: ss.train_sae(random_model, {"corpus": "x.txt"}, hook_name, "sae"),
        lambda: ss.suggest_alpha(random_model, vector, TEXTS, hook_name=hook_name),
    ]
    for call in calls:
        with pytest.raises(ss.InputError, match="hook_name should be a name such as 'blocks"):
            call()


def test_prompts_without_domains_have_no_sides(random_model):
    cached = ss.cache_activations(random_model, TEXTS, hook_name=HOOK, chat=False)
    for find in (ss.difference_of_means, ss.linear_probe):
        with pytest.raises(ss.InputError, match=r"no domains: cache .*ss\.Prompt\(text=\"…\", d"):
            find(cached, "code", "prose")


def test_sides_that_differ_in_their_answers_alone_are_sent_to_the_answers(random_model):
    prompts = [
        ss.Prompt(text="add two", domain=side, answer=answer)
        for side, answer in (("yes", "def f"), ("no", "the sum"))
    ]
    how = {"hook_name": HOOK, "chat": True, "max_norm": None}
    last = ss.cache_activations(random_model, prompts, tokens="last", **how)
    with pytest.raises(ss.InputError, match=r"tokens=\"answer\" and give at=\"answer\""):
        ss.difference_of_means(last, "yes", "no")
    answers = ss.cache_activations(random_model, prompts, tokens="answer", **how)
    assert ss.difference_of_means(answers, "yes", "no", at="answer").norm() > 0.99


def test_what_the_model_cannot_read_is_named_by_prompt(random_model, vector):
    n_ctx, d_vocab = random_model.cfg.n_ctx, random_model.cfg.d_vocab
    how = {"hook_name": HOOK}
    long = [[5], [5] * (n_ctx - 2)]
    with pytest.raises(ss.InputError, match=rf"^prompt '2' has {n_ctx - 2} tokens, and max"):
        ss.generate(random_model, long, {"v": vector}, max_new_tokens=10, **how)
    with pytest.raises(
        ss.InputError, match=rf"^prompt '1' has {n_ctx + 1} .* \({n_ctx}\): shorten"
    ):
        ss.sweep(random_model, None, [[5] * (n_ctx + 1)], directions={"v": vector}, **how)
    beyond = [[5], [6, d_vocab]]
    says = rf"^prompt '2' holds the token id {d_vocab}, but .* only ids 0 to {d_vocab - 1}$"
    for call in (
        lambda: ss.generate(random_model, beyond, {"v": vector}, **how),
        lambda: ss.sweep(random_model, None, beyond, directions={"v": vector}, **how),
        lambda: ss.cache_activations(random_model, beyond, **how),
    ):
        with pytest.raises(ss.InputError, match=says):
            call()


def test_a_list_of_vectors_holds_a_direction_each(random_model, vector):
    settings: dict[str, Any] = {
        "hook_name": HOOK,
        "alphas": [1],
        "metrics": ["kl"],
        "n_controls": 2,
    }
    second = torch.randn(len(vector), generator=torch.Generator().manual_seed(0))
    listed, stacked = (
        ss.sweep(random_model, None, TEXTS, directions=directions, **settings)
        for directions in ([vector, second.numpy()], torch.stack([vector, second]))
    )
    assert {"direction_0", "direction_1"} < set(listed.rows["direction"])
    pd.testing.assert_frame_equal(listed.rows, stacked.rows)
    with pytest.raises(ss.InputError, match="there is nothing to sweep"):
        ss.sweep(random_model, None, TEXTS, directions=[], **settings)


def test_an_overflowing_push_is_named(random_model, vector):
    settings: dict[str, Any] = {"hook_name": HOOK, "metrics": ["kl"], "n_controls": 2}
    found = ss.sweep(random_model, None, TEXTS, directions=vector, alphas=[1e30], **settings)
    assert any("overflow: lower α" in warning for warning in found.warnings)


def test_a_report_is_a_html_page(random_model, vector, tmp_path):
    settings: dict[str, Any] = {"hook_name": HOOK, "metrics": ["kl"], "n_controls": 2}
    found = ss.sweep(random_model, None, TEXTS, directions=vector, alphas=[1], **settings)
    with pytest.raises(ss.InputError, match=r"report\('report.html'\)"):
        found.report("report.pdf")


def test_alphas_that_nothing_takes_are_refused(random_model, vector):
    how = {"hook_name": HOOK, "alphas": [2, 3], "max_new_tokens": 2, "controls": 0, "chat": False}
    with pytest.raises(ss.InputError, match="leave out alphas, or give vectors"):
        ss.generate(random_model, TEXTS, {"a": ss.add(vector, 4.0)}, **how)
    both = {"a": ss.add(vector, 4.0), "v": vector}
    assert set(ss.generate(random_model, TEXTS, both, **how)["alpha"].dropna()) == {0, 2, 3}


def test_equal_prompts_are_said_to_narrow_the_intervals(random_model, vector):
    how = {"directions": {"v": vector}, "hook_name": HOOK, "chat": False, "n_controls": 0}
    result = ss.sweep(random_model, None, [*TEXTS, TEXTS[0]], alphas=[1.0], **how)
    assert any("Prompts '1' and '3' have the same tokens" in one for one in result.warnings)
    result = ss.sweep(random_model, None, TEXTS, alphas=[1.0], **how)
    assert not any("the same tokens" in one for one in result.warnings)


@pytest.mark.parametrize("texts", [["add"], ["add two", "add one"]])
def test_covariance_of_a_few_tokens_is_said_to_give_controls_that_are_alike(
    random_model, vector, texts
):
    how: dict[str, Any] = {"hook_name": HOOK, "n_controls": 20, "metrics": ["kl"], "alphas": [1.0]}
    result = ss.sweep(random_model, None, texts, directions=vector, **how)
    assert any("controls come from only" in one for one in result.warnings)
    other = ss.sweep(random_model, None, texts, directions=vector, controls="isotropic", **how)
    assert not any("controls come from only" in one for one in other.warnings)


def test_covariance_of_many_tokens_is_not(random_model, vector):
    draw = torch.Generator().manual_seed(0)
    words = [f"sort the {n} words of list {n * n}" for n in torch.randperm(40, generator=draw)]
    cached = ss.cache_activations(random_model, words, hook_name=HOOK, chat=False)
    how: dict[str, Any] = {"n_controls": 20, "metrics": ["kl"], "alphas": [1.0]}
    result = ss.sweep(
        random_model, None, TEXTS, directions=vector, activations=cached, hook_name=HOOK, **how
    )
    assert not any("controls come from only" in one for one in result.warnings)


def test_margins_can_be_named_beside_functions(random_model, vector):
    given = {"top": lambda logits: logits.amax(-1), "yes": ss.margin(target=[5])}
    how: dict[str, Any] = {"hook_name": HOOK, "n_controls": 20, "alphas": [1.0]}
    named = ss.sweep(random_model, None, TEXTS, directions=vector, metrics=given, **how)
    assert named.metrics == ("top", "yes")
    own = [{"p": ss.log_prob(target=[5])}, ss.margin(target=[5], name="yes")]
    listed = ss.sweep(random_model, None, TEXTS, directions=vector, metrics=own, **how)
    assert listed.metrics == ("p", "yes")
    pd.testing.assert_series_equal(listed.rows["yes"], named.rows["yes"])


def test_a_result_that_replaces_another_says_so(random_model, vector, tmp_path, capsys):
    how: dict[str, Any] = {"hook_name": HOOK, "n_controls": 2, "metrics": ["kl"], "alphas": [1.0]}
    result = ss.sweep(random_model, None, TEXTS, directions=vector, **how)
    result.save(tmp_path / "r")
    assert "held a result" not in capsys.readouterr().err
    result.save(tmp_path / "r")
    assert f"{tmp_path / 'r'} held a result, which this one replaces" in capsys.readouterr().err
