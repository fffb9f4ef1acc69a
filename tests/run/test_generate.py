"""Texts with and without edits, side by side."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from saes import random_sae

import saelens_steer as ss
from saelens_steer.config import TemplateSpec
from saelens_steer.pipeline import generate as generating
from saelens_steer.pipeline.placed import placed_edits, sae_of_starts

HOOK, NEXT = "blocks.4.hook_resid_pre", "blocks.5.hook_resid_pre"


def activations_at(hook_name: str, width: int) -> ss.Activations:
    index = pd.DataFrame({"prompt_id": ["1"] * 3, "domain": "", "position": range(3), "token": 5})
    return ss.Activations(torch.ones(3, width), index, hook_name)


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


@pytest.mark.slow
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
        ({}, {}, "nothing to apply"),
        (
            {"a": torch.ones(192)},
            {"positions": "generated", "max_new_tokens": 1},
            "at least 2",
        ),
        ({"original": torch.ones(192)}, {}, "'original'"),
        ({"a": torch.ones(7)}, {}, "'a' has shape"),
        ({"a": torch.ones(2, 192)}, {}, "'a' holds 2 vectors: give each a name, or their sum"),
        ({"a": torch.zeros(192)}, {}, "'a' is zero"),
        ({"a": torch.full((192,), torch.nan)}, {}, "'a' has entries that are not finite"),
        ({1: torch.ones(192)}, {}, "1 is not a name: use strings"),
        ({"a": {855: 1.0}}, {}, "but its key 855 is not a hook"),
        ({"a": "push"}, {}, "should be a torch tensor"),
        ({"a": [1]}, {}, "a list of edits"),
        ({"a": {}}, {}, "no edit"),
        ({"a": {"blocks.99.hook_resid_pre": torch.ones(192)}}, {}, "0 to 7"),
        ({"a": torch.ones(192)}, {"hook_name": None}, "hook_name="),
        ({"a": torch.ones(192)}, {"alphas": (0.0,)}, "not 0"),
        ({"a": torch.ones(192)}, {"samples": 2}, "temperature"),
        ({"a": torch.ones(192)}, {"max_new_tokens": 4000}, "n_ctx"),
        (
            {"a": torch.ones(192)},
            {"activations": activations_at(NEXT, 192)},
            "cache activations",
        ),
        ({"a": torch.ones(192)}, {"activations": activations_at(HOOK, 7)}, "7 wide"),
    ],
)
def test_what_cannot_be_done_is_refused_in_a_sentence(
    tiny_model, prompts, treatments, options, sentence, unchecked
):
    with pytest.raises(ss.InputError, match=sentence):
        ss.generate(tiny_model, prompts, treatments, **{"hook_name": HOOK, **options})


def test_controls_of_a_splice_leave_the_same_attention_sinks_alone(tiny_model, prompts, vector):
    sae = random_sae(len(vector), HOOK)
    treatments = {
        "alone": ss.reconstruct(sae),
        "in a list": [ss.add(vector), ss.ablate(sae, 3, error="drop")],
        "no splice": [ss.add(vector), ss.project_out(vector.flip(0))],
    }

    def sink(x, hook):
        if x.shape[1] > 1:
            x[:, -2] *= 1000
        return x

    with tiny_model.hooks(fwd_hooks=[(HOOK, sink)]):
        texts = ss.generate(tiny_model, prompts, treatments, max_new_tokens=1, hook_name=HOOK)
    changed = texts.set_index(["prompt_id", "variant"])["receipt_changed"].unstack()
    for name in treatments:
        assert (changed[f"random 1 for {name}"] == changed[name]).all()
    assert (changed["no splice"] == changed["alone"] + 1).all()


def test_controls_and_norms_are_found_once_for_each_hook(tiny_model, prompts, vector, monkeypatch):
    drawn, measured = [], []
    for name, calls in (("draw_controls", drawn), ("measured_scale", measured)):
        real = getattr(generating, name)
        monkeypatch.setattr(
            generating,
            name,
            lambda *a, real=real, calls=calls, **k: calls.append(a) or real(*a, **k),
        )
    both = {HOOK: vector, NEXT: vector}
    texts = ss.generate(
        tiny_model, prompts[:1], {"a": vector, "both": both}, hook_name=HOOK,
        alphas=(-0.1, 0.1), alpha_unit="resid_norm", max_new_tokens=1,
    )  # fmt: skip
    assert len(texts) == 1 + 2 * 2 * (1 + 1)
    assert len(drawn) == len(measured) == 2


def stating(prepend_bos):
    """An SAE that states how its training contexts began, or not."""
    sae = random_sae(192, HOOK)
    sae.cfg.metadata.prepend_bos = prepend_bos
    sae.cfg.metadata.sae_lens_training_version = None if prepend_bos is None else "6.0"
    return sae


@pytest.mark.parametrize(
    ("stated", "chosen"),
    [
        ((True, True), True),
        ((None, True), True),
        ((False, None), False),
        ((None, None), None),
        ((True, False), "refused"),
    ],
)
def test_plain_text_begins_as_the_saes_of_the_treatments_state(tiny_model, vector, stated, chosen):
    one, two = map(stating, stated)
    treatments = {"gated": ss.add(vector, gate=(one, 3)), "cut": [ss.ablate(two, 5)]}
    placed = placed_edits(tiny_model, treatments, None)  # their hook is that of the SAEs
    assert {hook for each in placed for hook in each.at} == {HOOK}
    for text, template in (("plain", TemplateSpec()), ("a chat", TemplateSpec(chat=True))):
        asked = tiny_model, [ss.Prompt("1", text)], template, placed
        if chosen == "refused" and text == "plain":
            with pytest.raises(ss.InputError, match="for one SAE and without it for another"):
                sae_of_starts(*asked)
        elif chosen != "refused":
            found = sae_of_starts(*asked)
            assert chosen == (None if found is None else found.cfg.metadata.prepend_bos)


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


def test_samples_have_numbers_in_a_notebook_if_there_are_several():
    rows = {"prompt_id": ["1"] * 4, "prompt": "x", "variant": ["original", "push"] * 2,
            "sample": [0, 0, 1, 1], "completion": ["a", "b", "c", "d"]}  # fmt: skip
    texts = ss.Texts(rows)
    assert "push, sample 2" in texts._repr_html_()
    assert "sample" not in texts[texts["sample"] == 0]._repr_html_()


def test_a_terminal_shows_the_texts_first():
    about = dict.fromkeys(["prompt_id", "domain", "prompt", "positions", "hook_name"], "x" * 40)
    rows = {**about, "variant": ["original"] * 25, "alpha": 0.5, "seconds": 1.0,
            "completion": ["two\nlines", *"abcdefghijklmnopqrstuvwx"]}  # fmt: skip
    shown = repr(ss.Texts(rows)).splitlines()
    assert r"'two\nlines'" in shown[1]
    assert len(shown) == 1 + 20 + 2
    assert shown[-1].startswith("25 texts; columns: prompt_id, domain")
    assert "seconds" in repr(ss.Texts(rows)[["seconds"]])
