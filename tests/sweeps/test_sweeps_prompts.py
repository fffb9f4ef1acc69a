"""Prompts of every kind, at every function that takes prompts."""

from __future__ import annotations

import pytest
import torch
from saes import random_sae

import saelens_steer as ss

HOOK = "blocks.2.hook_resid_pre"
USER = [{"role": "user", "content": "add two numbers"}]
SMALL = {"features": [3], "alphas": [2], "n_controls": 2, "controls": "isotropic"}
JUDGING = ("code_validity", "latex_validity", "latex_first")


@pytest.fixture(scope="module")
def sae():
    return random_sae(32, HOOK)


@pytest.fixture(scope="module")
def asked(random_model):
    return random_model.tokenizer.apply_chat_template(
        USER, tokenize=False, add_generation_prompt=True
    )


@pytest.fixture(scope="module")
def one_thing_in_all_ways(random_model, asked):
    """The same tokens as messages, templated text, token ids and prompts of these."""
    ids = random_model.tokenizer(asked)["input_ids"]
    return [USER, asked, ids, ss.Prompt(messages=USER), ss.Prompt("own", ids=ids)]


def test_a_sweep_measures_the_same_however_a_prompt_is_given(
    random_model, sae, one_thing_in_all_ways
):
    brief = {"metrics": ["kl", *JUDGING], "completions": {"max_new_tokens": 2}}
    found = ss.sweep(random_model, sae, one_thing_in_all_ways, **brief, **SMALL)
    assert found.rows["prompt_id"].unique().tolist() == ["1", "2", "3", "4", "own"]
    values = found.rows.groupby(["direction", "alpha"])["kl"].agg(["min", "max"])
    torch.testing.assert_close(
        *(torch.tensor(values[c].to_numpy()) for c in values), atol=1e-5, rtol=0
    )
    assert found.special_tokens is None


def test_compare_edits_writes_the_same_however_a_prompt_is_given(
    random_model, one_thing_in_all_ways, asked
):
    edit = {"nothing": ss.add(torch.zeros(32), 1.0)}
    found = ss.compare_edits(random_model, edit, one_thing_in_all_ways, HOOK, max_new_tokens=6)
    assert found["completion"].nunique() == 1
    shown = found.drop_duplicates("prompt_id")["prompt"].tolist()
    assert shown == ["add two numbers", asked, asked, "add two numbers", asked]


def test_cached_activations_are_the_same_however_a_prompt_is_given(
    random_model, one_thing_in_all_ways
):
    first, *others = (
        ss.cache_activations(random_model, [prompt], hook_name=HOOK)
        for prompt in one_thing_in_all_ways
    )
    assert first.begins is None
    assert all(torch.equal(first.vectors, other.vectors) for other in others)
    assert ss.cache_activations(random_model, [*one_thing_in_all_ways, "x"]).begins == []


@pytest.mark.parametrize("metric", JUDGING)
def test_metrics_of_whole_answers_are_refused_where_no_answer_begins(
    random_model, sae, asked, metric
):
    edit = {"nothing": ss.add(torch.zeros(32), 1.0)}
    prefilled = [*USER, {"role": "assistant", "content": "Sure:"}]
    for prompt, says in (
        ("add two numbers", r"is plain text: give messages or chat=True \(prompts\.chat: true\)"),
        (asked + "Sure:", "does not end where an answer begins"),
        (prefilled, "does not end where an answer begins"),
        ([5, 6, 7], "does not end where an answer begins"),
    ):
        with pytest.raises(ss.InputError, match=f"{metric} judges an answer.*{says}"):
            ss.sweep(random_model, sae, [USER, prompt], metrics=["kl", metric], **SMALL)
        with pytest.raises(ss.InputError, match=f"{metric} judges an answer.*{says}"):
            ss.compare_edits(random_model, edit, [prompt], HOOK, metrics=[metric])


def test_other_metrics_read_the_last_token_of_any_text(random_model, sae):
    margin = ss.margin(target=[40], other=[41, 42])
    words = {"mentions": {"words": ["add"]}}
    prompts = ["add two numbers", USER, [5, 6, 7]]
    metrics = [margin, "kl", "distinct_words", words]
    found = ss.sweep(random_model, sae, prompts, metrics=metrics, **SMALL)
    assert found.rows["margin"].notna().all()


def test_prompts_with_one_id_are_refused(random_model, sae):
    with pytest.raises(ss.InputError, match=r"prompts\[0\] and prompts\[1\] have the same id '2'"):
        ss.sweep(random_model, sae, [ss.Prompt("2", "x"), "y"], **SMALL)


def test_options_of_the_template_change_what_a_sweep_reads(random_model, sae):
    def kl(**options):
        return ss.sweep(random_model, sae, [USER], metrics=["kl"], **SMALL, **options).rows["kl"]

    plain, told = kl(), kl(system="Be brief.")
    closed = kl(add_generation_prompt=False)
    assert not plain.equals(told) and not plain.equals(closed)
    with pytest.raises(ss.InputError, match="sweep: system needs the chat template"):
        kl(system="Be brief.", chat=False)
