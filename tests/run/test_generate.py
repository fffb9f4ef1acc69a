"""Texts side by side, and strengths that change texts without breaking them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

import saelens_steer as ss

HOOK, NEXT = "blocks.4.hook_resid_pre", "blocks.5.hook_resid_pre"


def activations_at(hook_name: str, width: int) -> ss.Activations:
    index = pd.DataFrame({"prompt_id": ["1"] * 3, "domain": "", "position": range(3), "token": 5})
    return ss.Activations(torch.ones(3, width), index, hook_name)


@pytest.fixture(scope="module")
def prompts():
    return ss.load_prompts("tiny-code-math-mixed", 2)


@pytest.fixture(scope="module")
def vector(tiny_model):
    return torch.randn(tiny_model.cfg.d_model, generator=torch.Generator().manual_seed(0))


def by_hand(model, prompt, edits, n=10):
    """The greedy text inside `steered`."""
    asked = [{"role": "user", "content": prompt.text}]
    text = model.tokenizer.apply_chat_template(
        asked, tokenize=False, add_generation_prompt=True, enable_thinking=False
    )
    tokens = model.to_tokens(text, prepend_bos=False)
    with ss.steered(model, edits, HOOK):
        out = model.generate(tokens, n, do_sample=False, verbose=False, stop_at_eos=False)
    return model.tokenizer.decode(out[0, tokens.shape[1] :], skip_special_tokens=True)


def test_a_vector_is_pushed_along_at_each_strength_and_an_edit_as_it_is(
    tiny_model, prompts, vector
):
    treatments = {"push": vector, "out": ss.project_out(vector)}
    texts = ss.generate(
        tiny_model, prompts, treatments, hook_name=HOOK, alphas=(-3.0, 3.0), max_new_tokens=10
    )
    written = texts[~texts["control"]].set_index(["prompt_id", "variant", "alpha"])["completion"]
    for prompt in prompts:
        for alpha in (-3.0, 3.0):
            expected = by_hand(tiny_model, prompt, ss.add(vector, alpha))
            assert written[prompt.id, "push", alpha] == expected
        (out,) = written[prompt.id].loc["out"]
        assert out == by_hand(tiny_model, prompt, ss.project_out(vector))


def test_each_control_moves_every_prompt_as_far_as_its_treatment(tiny_model, prompts, vector):
    treatments = {
        "push": vector,
        "out": ss.project_out(vector),
        "both": {HOOK: [ss.add(vector), ss.project_out(torch.ones_like(vector))], NEXT: vector},
    }
    texts = ss.generate(
        tiny_model, prompts, treatments, hook_name=HOOK, controls=2, max_new_tokens=2
    )
    for name in ("push", "out"):
        own = texts[texts["variant"] == name].set_index("prompt_id")["receipt_rel_norm"]
        for i in (1, 2):
            control = texts[texts["variant"] == f"random {i} for {name}"].set_index("prompt_id")
            assert control["control"].all()
            assert np.allclose(control["receipt_rel_norm"], own, rtol=1e-4)
    assert set(texts["variant"]) >= {"original", "both", "random 2 for both"}


def test_the_unit_of_alpha_is_the_norm_of_what_is_added(tiny_model, prompts, vector):
    norms = {}
    for unit in ("raw", "unit", "resid_norm"):
        texts = ss.generate(
            tiny_model, prompts, {"push": vector}, hook_name=HOOK, alphas=(0.5,), alpha_unit=unit,
            max_new_tokens=1, controls=0,
        )  # fmt: skip
        norms[unit] = texts[texts["variant"] == "push"]["receipt_rel_norm"].mean()
    assert norms["raw"] / norms["unit"] == pytest.approx(float(vector.norm()), rel=1e-4)
    assert norms["resid_norm"] == pytest.approx(0.5, rel=0.15)


def test_samples_are_reproducible_and_the_same_draws_for_each_variant(tiny_model, prompts, vector):
    how = {"hook_name": HOOK, "temperature": 2.0, "samples": 2, "max_new_tokens": 8, "controls": 0}
    once = ss.generate(tiny_model, prompts, {"tiny push": vector * 1e-6}, **how)
    again = ss.generate(tiny_model, prompts, {"tiny push": vector * 1e-6}, **how)
    assert list(once["completion"]) == list(again["completion"])
    by = once.set_index(["prompt_id", "sample", "variant"])["completion"].unstack()
    assert (by["original"] == by["tiny push"]).all()
    assert by["original"].nunique() > len(prompts)  # the two samples differ


@pytest.mark.parametrize(
    ("treatments", "options", "sentence"),
    [
        ([torch.ones(192)], {}, "by name"),
        ({"original": torch.ones(192)}, {}, "'original'"),
        ({"a": torch.ones(7)}, {}, "a has shape"),
        ({"a": "push"}, {}, "should be a torch tensor"),
        ({"a": [1]}, {}, "a list of edits"),
        ({"a": {}}, {}, "no edit"),
        ({"a": {"blocks.99.hook_resid_pre": torch.ones(192)}}, {}, "0 to 7"),
        ({"a": torch.ones(192)}, {"hook_name": None}, "hook_name="),
        ({"a": torch.ones(192)}, {"alphas": (0.0,)}, "not 0"),
        ({"a": torch.ones(192)}, {"samples": 2}, "temperature"),
        ({"a": torch.ones(192)}, {"max_new_tokens": 4000}, "n_ctx"),
        ({"a": torch.ones(192)}, {"activations": activations_at(NEXT, 192)}, "cache them there"),
        ({"a": torch.ones(192)}, {"activations": activations_at(HOOK, 7)}, "7 wide"),
    ],
)
def test_what_cannot_be_done_is_refused_in_a_sentence(
    tiny_model, prompts, treatments, options, sentence, unchecked
):
    with pytest.raises(ss.InputError, match=sentence):
        ss.generate(tiny_model, prompts, treatments, **{"hook_name": HOOK, **options})


def test_several_hooks_at_once_are_nested_contexts(tiny_model, prompts, vector):
    edits = {HOOK: ss.add(vector, 3.0), NEXT: [ss.project_out(vector)]}
    table = ss.compare_edits(tiny_model, {"both": edits}, prompts, max_new_tokens=6)
    rows = table[table["variant"] == "both"]
    assert set(rows["hook_name"]) == {f"{HOOK}, {NEXT}"}
    with ss.steered(tiny_model, ss.project_out(vector), NEXT):
        expected = [by_hand(tiny_model, p, ss.add(vector, 3.0), 6) for p in prompts]
    assert list(rows["completion"]) == expected


def test_a_notebook_marks_changed_words_and_runs_nothing():
    texts = ss.Texts({
        "prompt_id": ["1", "1"],
        "prompt": ["<script>alert(1)</script>"] * 2,
        "variant": ["original", "<b>push</b>"],
        "completion": ["the cat sat", "the <img src=x onerror=alert(1)> sat"],
    })  # fmt: skip
    html = texts._repr_html_()
    assert "<mark>" in html
    assert "the " in html.split("<mark>")[1].split("</mark>")[1] or "sat" in html
    for hostile in ("<script", "<img", "<b>push"):
        assert hostile not in html
    assert isinstance(texts[texts["variant"] == "original"], ss.Texts)
    assert "<table" in texts[["completion"]]._repr_html_()  # pandas' own


@pytest.mark.slow
def test_a_suggested_strength_changes_texts_and_leaves_them_readable(tiny_model, prompts):
    unembed = tiny_model.W_U[:, tiny_model.to_single_token("$$")]
    found = ss.suggest_alpha(tiny_model, unembed, prompts, hook_name="blocks.7.hook_resid_pre")
    table = found.table
    assert (table["share_changed"].between(0, 1)).all()
    for sign, alpha in (("positive", found.positive), ("negative", found.negative)):
        side = table[np.sign(table["alpha"]) == (1 if sign == "positive" else -1)]
        kept = side[~side["broken"]]["alpha"].abs()
        changed = side[side["changed"] & ~side["broken"]]["alpha"].abs()
        if alpha is None:
            assert not len(changed) or changed.min() >= kept.max()
            continue
        assert abs(alpha) == pytest.approx((changed.min() * kept.max()) ** 0.5)
        edit = ss.add(unembed, alpha)
        texts = ss.compare_edits(
            tiny_model, {"push": edit}, prompts, "blocks.7.hook_resid_pre", max_new_tokens=32
        )
        by = texts.set_index(["prompt_id", "variant"])["completion"].unstack()
        assert (by["original"] != by["push"]).mean() >= 0.5
    assert "strengths tried" in repr(found)


@pytest.mark.slow
def test_strengths_are_tried_upward_and_no_further_than_broken_text(tiny_model, prompts, vector):
    table = ss.suggest_alpha(tiny_model, vector, prompts, hook_name=HOOK).table
    for side in (table[table["alpha"] > 0], table[table["alpha"] < 0]):
        assert side["rel_norm"].is_monotonic_increasing
        assert not side["broken"].iloc[:-1].any()
