"""Strengths that change texts without breaking them."""

from __future__ import annotations

import contextlib

import numpy as np
import pandas as pd
import pytest

import saelens_steer as ss
from saelens_steer.pipeline import suggest
from saelens_steer.sweeps import VariantTexts

HOOK = "blocks.4.hook_resid_pre"


def tried(*rows):
    """Rows of strengths 1, 2, …, given as two letters: changed or same, whole or broken."""
    return [
        {"alpha": float(number), "changed": row[0] == "c", "broken": row[1] == "b"}
        for number, row in enumerate(rows, start=1)
    ]


@pytest.mark.parametrize(
    ("rows", "alpha"),
    [
        (tried("sw", "cw", "cw", "cb"), 6**0.5),
        (tried("cw", "cw", "cw", "cw"), 2.0),
        (tried("sw", "cw", "sw", "cb"), 6**0.5),
        (tried("sw", "cw", "cb"), None),
        (tried("sw", "sw", "cb"), None),
        (tried("sw", "sw"), None),
        (tried("cb"), None),
    ],
)
def test_the_suggested_strength_is_between_the_first_change_and_the_last_whole_text(rows, alpha):
    for sign in (1, -1):
        found = suggest._suggested([row | {"alpha": sign * row["alpha"]} for row in rows])
        assert found == (alpha if alpha is None else pytest.approx(sign * alpha))


def ending_at_once(monkeypatch, model, which, edited=True):
    """Let the first `which` texts of each variant be empty."""

    class EndingAtOnce(VariantTexts):
        def written(self, asked, *rest):
            found = super().written(asked, *rest)
            for (variant, _), new in zip(asked, found, strict=True):
                if bool(variant.edits) == edited:
                    new[:which] = suggest.stop_token_ids(model)[0]
            return found

    monkeypatch.setattr(suggest, "VariantTexts", EndingAtOnce)


@pytest.mark.parametrize("empty", [0, 1, 2])
def test_half_empty_texts_are_broken_texts(tiny_model, vector, monkeypatch, empty):
    three = ss.load_prompts("tiny-code-math-mixed", 3)
    ending_at_once(monkeypatch, tiny_model, empty)
    weakest = suggest.STRENGTHS[:3]
    monkeypatch.setattr(suggest, "STRENGTHS", weakest)
    table = ss.suggest_alpha(tiny_model, vector, three, hook_name=HOOK, max_new_tokens=4).table
    tried = weakest[:1] if empty == 2 else weakest
    assert table["rel_norm"].tolist() == [*tried, *tried]
    assert table["broken"].tolist() == [empty == 2] * len(table)
    assert ((table["distinct_words"] == 0) == (empty == 2)).all()


def test_a_model_that_writes_nothing_is_no_measure_of_broken_texts(
    tiny_model, prompts, vector, monkeypatch
):
    ending_at_once(monkeypatch, tiny_model, None, edited=False)
    with pytest.raises(ss.InputError, match="half of the unsteered texts are empty"):
        ss.suggest_alpha(tiny_model, vector, prompts, hook_name=HOOK)


@pytest.mark.slow
def test_strengths_tried_together_are_those_tried_one_at_a_time(
    tiny_model, prompts, vector, monkeypatch
):
    monkeypatch.setattr(suggest, "STRENGTHS", suggest.STRENGTHS[2::4])
    how = {"hook_name": HOOK, "max_new_tokens": 6}
    alone = ss.suggest_alpha(tiny_model, vector, prompts, batch_size=1, **how)
    assert len(alone.table) > 4
    for batch_size in (5, 16):
        found = ss.suggest_alpha(tiny_model, vector, prompts, batch_size=batch_size, **how)
        pd.testing.assert_frame_equal(found.table, alone.table, rtol=1e-4)
        assert repr(found) == repr(alone)


def test_the_progress_ends_at_the_number_of_texts_announced(
    tiny_model, prompts, vector, monkeypatch
):
    announced, noted = [], []

    @contextlib.contextmanager
    def counting(what, total):
        announced.append(total)
        yield noted.append

    monkeypatch.setattr(suggest, "progress", counting)
    ss.suggest_alpha(tiny_model, vector, prompts, hook_name=HOOK, max_new_tokens=4)
    assert announced == [sum(noted)] == [2 * len(suggest.STRENGTHS) * len(prompts)]


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
