"""The study's outcome on texts and its two one-sided claims, on tables made by hand."""

import math

import pandas as pd
import pytest

from configs.smollm2.outcomes import finished_latex
from scripts.smollm2.answer import changes, p_of_harm, shares


@pytest.mark.parametrize(
    ("text", "truncated", "expected"),
    [
        ("```python\na = s**2\n```\n$$A = s^2$$", False, True),
        ("```python\na = s**2\n```\n$$A = s^2$$", True, None),
        ("```python\na = '$$x$$'\n```", False, False),
        ("The area is s squared.", False, False),
        ("The area is s", True, None),
        ("", False, False),
    ],
)
def test_an_answer_counts_only_if_it_ended(text, truncated, expected):
    assert finished_latex(text, truncated) is expected


def test_p_counts_the_feature_among_its_controls():
    assert p_of_harm(-1.0, pd.Series([-2.0, -1.0, 0.0])) == 3 / 4
    assert p_of_harm(-3.0, pd.Series([-2.0] * 199)) == 1 / 200


def test_what_is_undefined_never_lowers_p():
    assert p_of_harm(-1.0, pd.Series([math.nan, 0.0, 0.0])) == 2 / 4
    assert math.isnan(p_of_harm(math.nan, pd.Series([0.0, 0.0])))


def rows(direction: str, family: str, *effects: float) -> list[dict]:
    return [
        {"direction": direction, "family": family, "alpha": alpha, "prompt_id": str(prompt)}
        | {"latex_if_no_fence": prompt + (effect if alpha else 0.0)}
        for prompt, effect in enumerate(effects)
        for alpha in (0.0, 0.3)
    ]


def test_a_change_is_the_mean_over_prompts_against_the_same_prompt_unsteered():
    table = changes(
        pd.DataFrame([*rows("feature_1", "candidate", -1, -3), *rows("c_0", "covariance", 0, 1)])
    )
    assert dict(zip(table["direction"], table["change"], strict=True)) == {
        "feature_1": -2.0,
        "c_0": 0.5,
    }


def test_cut_answers_are_missing_and_bounded_from_both_sides():
    outcomes = {"feature_1": [True, None, False, None], "covariance_0": [True, True, None, False]}
    texts = [
        {"direction": name, "family": name.split("_")[0], "alpha": alpha, "finished_latex": value}
        for name, values in outcomes.items()
        for value in values
        for alpha in (0.0, 0.3)
    ]
    table = shares(pd.DataFrame(texts)).set_index("direction")
    assert table.loc["feature_1", ["share", "missing", "most", "least"]].tolist() == [
        *(0.5, 2, 0.75, 0.25)
    ]
    assert table.loc["covariance_0", ["share", "missing", "most", "least"]].tolist() == [
        *(2 / 3, 1, 0.75, 0.5)
    ]
