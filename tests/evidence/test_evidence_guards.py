"""Laws of the warnings: each is a sentence with its numbers, and a sound sweep has none."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from simulated import linear_effects, long_table

from saelens_steer.evidence import claims, guards

M = "math_margin"
SLOPES = np.array([0.5, 0.2, *0.02 * np.random.default_rng(0).normal(size=60)])
ALPHAS = (-4.0, 0.0, 4.0)


def sound(n_prompts: int = 24, n_controls: int = 60) -> pd.DataFrame:
    """Two candidates and controls on a margin; every push is a tenth of the residual per α."""
    cube = linear_effects(SLOPES[: 2 + n_controls], ALPHAS, n_prompts)
    return with_dose(long_table(cube, ALPHAS, n_candidates=2), 0.025)


def with_dose(rows: pd.DataFrame, per_alpha: float) -> pd.DataFrame:
    return rows.assign(receipt_rel_norm=per_alpha * rows["alpha"].abs())


def with_rate(rows: pd.DataFrame, unsteered: float, ones: int = 0, name: str = "rate"):
    """A rate that is so at α = 0, but for the first `ones` prompts; mixed where there is a push."""
    prompt = rows["prompt_id"].str.removeprefix("p").astype(int)
    base = np.where(prompt < ones, 1 - unsteered, unsteered)
    return rows.assign(**{name: np.where(rows["alpha"] == 0, base, (prompt % 2).astype(float))})


def warned(rows: pd.DataFrame, *metrics: str, completions: pd.DataFrame | None = None) -> list[str]:
    named = metrics or (M,)
    texts = pd.DataFrame() if completions is None else completions
    return guards(rows, claims(rows, named), texts, named)


def texts(by_alpha: dict[float, list[str]], direction: str = "feature_0", family="candidate"):
    """The completions of one direction."""
    lines = [
        (direction, family, a, f"p{i}", t) for a in by_alpha for i, t in enumerate(by_alpha[a])
    ]
    return pd.DataFrame(lines, columns=["direction", "family", "alpha", "prompt_id", "completion"])


def test_a_sound_sweep_has_no_warning():
    rows = with_rate(sound(), 0.0, ones=10)
    rows["kl"] = rows["alpha"].abs() / 10
    written = texts({0.0: ["a b c d"], 4.0: ["a b c a"]})
    assert warned(rows, M, "rate", "kl", completions=written) == []


def test_without_a_direction_under_test_there_is_nothing_to_warn_of():
    rows = long_table(np.zeros((3, 3, 2)), ALPHAS, n_candidates=0)
    assert warned(rows) == []


# --- saturation


@pytest.mark.parametrize("bound", [0.0, 1.0])
def test_a_rate_that_nearly_every_unsteered_prompt_has_at_its_end_is_saturated(bound):
    assert warned(with_rate(sound(), bound, ones=1), "rate") == [
        "This metric is at its limit without steering, and can only move one way: "
        f"rate at {bound:.0f} (23 of 24 prompts)."
    ]
    assert warned(with_rate(sound(), bound, ones=2), "rate") == []


def test_kl_is_zero_by_construction_and_margins_have_no_end():
    rows = sound()
    rows["kl"] = rows["alpha"].abs() / 10
    one_sided = rows.assign(**{M: rows["alpha"] / 2 - 3})
    assert warned(rows, "kl") == warned(one_sided, M) == []


def test_several_saturated_rates_are_named_together():
    rows = with_rate(with_rate(sound(), 0.0, name="low"), 1.0, name="high")
    assert warned(rows, "low", M, "high") == [
        "These metrics are at their limits without steering, and can only move one way: "
        "low at 0 (24 of 24 prompts), high at 1 (24 of 24 prompts)."
    ]


# --- dose


def test_steering_that_adds_under_two_percent_is_too_weak():
    assert warned(with_dose(sound(), 0.0049)) == [
        "At |α| = 4, the largest, steering changes activations by 2 % of their norm: "
        "too weak for a null result to be informative."
    ]
    assert warned(with_dose(sound(), 0.0051)) == []


def test_a_push_larger_than_the_residual_at_the_smallest_strength_is_too_strong():
    assert warned(with_dose(sound(), 0.3)) == [
        "At |α| = 4, the smallest, the norm of a push is 1.2 times the activation's: "
        "too strong to show what a feature does."
    ]


def test_strong_pushes_are_no_fault_where_there_are_weaker_ones():
    alphas = (-4.0, -1.0, 0.0, 1.0, 4.0)
    rows = long_table(linear_effects(SLOPES, alphas, 24), alphas, n_candidates=2)
    assert warned(with_dose(rows, 0.5)) == []


def test_a_direction_that_changes_nothing_is_named_and_does_not_weaken_the_others():
    rows = sound()
    rows.loc[rows["direction"] == "feature_1", "receipt_rel_norm"] = 0.0
    assert warned(rows) == [
        "1 of 2 directions never changed an activation (feature 1): steering along it tested "
        "nothing."
    ]


def test_rows_without_receipts_are_not_judged_by_them():
    assert warned(sound().drop(columns="receipt_rel_norm")) == []


def test_controls_do_not_count_for_the_dose():
    rows = sound()
    rows.loc[rows["family"] != "candidate", "receipt_rel_norm"] = 0.0
    assert warned(rows) == []


# --- texts


PLAIN = ["one two three four", "five six seven eight"]


def test_texts_that_collapse_are_said_to_from_the_weakest_push_on():
    found = texts({-8.0: ["x " * 20] * 2, -2.0: ["y " * 5, "y " * 5], 0.0: PLAIN, 4.0: PLAIN})
    other = texts({-2.0: PLAIN, 0.0: PLAIN}, "feature_1")
    assert warned(sound(), completions=pd.concat([found, other])) == [
        "Texts repeat themselves, first at α = −2 (feature 0): 20 % of the words in 2 texts are "
        "distinct, against 100 % unsteered. This happens for 1 of 2 directions."
    ]


def test_texts_without_a_word_have_collapsed():
    assert warned(sound(), completions=texts({0.0: PLAIN, 4.0: ["", " "]}))[0].startswith(
        "Texts repeat themselves, first at α = 4 (feature 0): 0 % of the words in 2 texts"
    )


def test_half_the_distinct_words_are_not_yet_a_collapse_nor_are_controls_judged():
    half = texts({0.0: PLAIN, 4.0: ["a a b b", "c c d d"]})
    control = texts({0.0: PLAIN, 4.0: ["x " * 20] * 2}, "covariance_0000", "covariance")
    assert warned(sound(), completions=pd.concat([half, control])) == []


# --- prompts, controls, values


def test_few_prompts_are_not_to_be_trusted_and_one_gives_no_interval():
    assert warned(sound(n_prompts=9)) == [
        "Only 9 prompts were steered: intervals over fewer than 10 are unreliable."
    ]
    assert warned(sound(n_prompts=10)) == []
    assert warned(sound(n_prompts=1)) == [
        "Only one prompt was steered: there are no intervals, and the effect on other prompts "
        "is unknown."
    ]


def test_metrics_that_lack_controls_alike_are_named_in_one_sentence():
    rows = with_rate(sound(n_controls=39), 0.0, ones=10)
    assert warned(rows, M, "rate") == [
        "Not testable (claims about 2 directions need at least 40 controls but have 39): "
        f"{M}, rate."
    ]
    assert warned(sound(n_controls=40)) == []
    assert warned(sound(n_controls=0)) == [
        f"Not testable (claims about 2 directions need at least 40 controls but have none): {M}."
    ]


def test_a_metric_of_text_is_judged_by_the_directions_that_have_texts():
    rows = with_rate(sound(), 0.0, ones=10)
    having = rows["direction"].isin(["feature_0", "covariance_0000", "covariance_0001"])
    rows.loc[~having, "rate"] = np.nan
    assert warned(rows, M, "rate") == [
        "Not testable (claims about 1 direction need at least 20 controls but have 2): rate."
    ]


def test_a_metric_without_values_is_named():
    rows = sound().assign(nowhere=np.nan)
    rows["unsteered"] = rows[M].where(rows["alpha"] == 0)
    assert warned(rows, M, "nowhere", "unsteered") == [
        "Undefined on every steered prompt: nowhere, unsteered."
    ]


def test_a_metric_that_some_cells_have_on_fewer_prompts_is_named_with_the_fewest():
    rows = with_rate(sound(), 0.0, ones=10)
    prompt = rows["prompt_id"].str.removeprefix("p").astype(int)
    gone = (rows["direction"] == "feature_1") & (rows["alpha"] == 4) & (prompt > 4)
    rows["rate"] = rows["rate"].mask(gone)
    assert warned(rows, M, "rate") == [
        "Undefined for some prompts, so means cover different prompts: rate (as few as 5 of 24)."
    ]
