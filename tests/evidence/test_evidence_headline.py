from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from simulated import long_table

from saelens_steer.errors import InputError
from saelens_steer.evidence import claims, headline, summarise

M = "math_margin"
WOBBLE = np.array([-1.0, -0.5, 0.0, 0.5, 1.0, 0.0])


def sentence(
    *pushes: float, controls: list[float], wobble: float = 0.1, metric: str = M, **columns
) -> str:
    """Candidates that change the metric by so much at α = 4, against controls that do."""
    cube = np.zeros((len(pushes) + len(controls), 2, 6)) + np.arange(6)
    cube[:, 1] += np.array([*pushes, *controls])[:, None] + wobble * WOBBLE
    rows = long_table(cube, (0.0, 4.0), n_candidates=len(pushes), metric=metric)
    rows = rows.assign(**columns)
    return headline(claims(rows, [metric]), summarise(rows, [metric]))


def even(n: int, largest: float = 0.3) -> list[float]:
    return list(np.linspace(-largest, largest, n))


def test_a_push_beyond_all_random_ones_is_said_to_be_so():
    assert sentence(-2.0, 0.1, controls=even(100)) == (
        "Pushing along feature 0 by α = 4 lowers math_margin by 2.0 [1.9, 2.1]; none of 100 random "
        "directions of the same norm (covariance) do as much (p = 0.02 for the best of 2 features)."
    )


def test_a_push_within_the_random_ones_is_said_to_be_no_more():
    assert sentence(0.2, 0.1, controls=even(100)) == (
        "Pushing along feature 0 by α = 4 raises math_margin by 0.20 [0.15, 0.25]; 34 % of 100 "
        "random directions of the same norm (covariance) do as much, and none of the 2 features "
        "does more than random directions."
    )


def test_one_feature_within_the_random_ones_is_said_to_be_no_more():
    assert sentence(0.2, controls=even(100)).endswith(
        "do as much, so it does no more than random directions."
    )


def test_an_interval_that_includes_zero_is_said_to():
    text = sentence(0.1, controls=even(100), wobble=1.0)
    assert "changes math_margin by 0.10 [−0.4" in text
    assert "an interval that includes 0; " in text
    assert "raises" not in text


def test_too_few_controls_are_said_to_be_too_few():
    assert sentence(-2.0, 0.1, controls=even(39)).endswith(
        "none of 39 random directions of the same norm (covariance) do as much; "
        "the effect is not testable with 39 controls, because 2 features need at least 40."
    )
    assert sentence(-2.0, controls=[]).endswith(
        "; no random direction was measured, so the effect cannot be tested."
    )


def test_many_modest_passes_without_a_standing_best_are_both_said():
    text = sentence(*[2.0] * 10, controls=[*even(398), 5.0, 5.0])
    assert "; 0.5 % of 400 random directions" in text
    assert "10 of 10 features do more than random directions (q < 0.05), but the best of 10" in text


def test_no_effect_at_all_is_said_to_be_none():
    text = sentence(0.0, controls=[0.0] * 30, wobble=0.0)
    assert text.startswith(
        "Pushing along feature 0 by α = 4 does not change math_margin; 100 % of 30"
    )


def test_a_unit_and_a_plain_vector_are_named():
    text = sentence(
        -2.0, controls=even(30), alpha_unit="unit", feature=pd.array([pd.NA] * 372, dtype="Int64")
    )
    assert text.startswith("Pushing along feature 0 by α = 4 (unit) lowers math_margin")
    assert text.endswith("do as much (p = 0.032).")


def test_one_prompt_gives_no_interval_and_no_verb():
    rows = long_table(np.array([[[0.0], [2.0]], [[0.0], [1.0]]]), (0.0, -4.0))
    text = headline(claims(rows, [M]), summarise(rows, [M]))
    assert text.startswith(
        "Pushing along feature 0 by α = −4 changes math_margin by 2.0 (no interval: too few "
        "prompts); "
    )


def test_a_named_metric_leads_and_an_unknown_one_is_refused():
    rows = long_table(np.random.default_rng(0).normal(size=(30, 2, 6)), (0.0, 4.0))
    rows = rows.assign(kl=rows[M] ** 2, code_valid=np.nan)
    table, summary = claims(rows, [M, "kl", "code_valid"]), summarise(rows, [M, "kl", "code_valid"])
    assert f" {M} " in headline(table, summary)
    assert "nats of KL" in headline(table, summary, "kl")
    assert headline(table, summary, "code_valid") == (
        "No tested direction was measured on code_valid."
    )
    with pytest.raises(InputError, match="did you mean 'code_valid'"):
        headline(table, summary, "code_vald")


def test_a_rise_of_kl_is_no_news_and_so_said_as_a_disturbance():
    text = sentence(2.0, controls=even(100), metric="kl")
    assert text.startswith(
        "Pushing along feature 0 by α = 4 shifts the next-token distribution by 2.0 nats of KL "
        "[1.9, "
    )
    assert "; none of 100 random directions" in text and "raises" not in text
    within = sentence(0.2, 0.1, controls=even(100), metric="kl")
    assert within.startswith(
        "Pushing along feature 0 by α = 4 shifts the next-token distribution by 0.20 nats of"
    )
    assert within.endswith("and none of the 2 features does more than random directions.")
    still = sentence(0.0, controls=[0.0] * 30, wobble=0.0, metric="kl")
    assert still.startswith(
        "Pushing along feature 0 by α = 4 shifts the next-token distribution by 0 nats of KL ["
    )


def test_one_prompt_gives_no_interval_of_kl():
    rows = long_table(np.array([[[0.0], [2.0]], [[0.0], [1.0]]]), (0.0, 4.0), metric="kl")
    text = headline(claims(rows, ["kl"]), summarise(rows, ["kl"]))
    assert "by 2.0 nats of KL (no interval: too few prompts); " in text


def test_without_candidates_the_headline_says_so():
    rows = long_table(np.zeros((3, 2, 6)), (0.0, 4.0), n_candidates=0)
    assert headline(claims(rows, [M]), summarise(rows, [M])) == "No direction was tested."


def test_over_several_norms_the_headline_pays_for_all_candidates():
    cube = np.zeros((62, 2, 6)) + np.arange(6)
    cube[:, 1] += np.array([2.0, 0.1, *even(60)])[:, None]
    rows = long_table(cube, (0.0, 4.0), n_candidates=2)
    second = rows["direction"].isin(["feature_1", *(f"covariance_{i:04d}" for i in range(20))])
    rows["matched_norm"] = np.where(second, 2.0, 1.0)
    text = headline(claims(rows, [M]), summarise(rows, [M]))
    assert text.endswith("do as much (p = 0.049 for the best of 2 features).")


def test_tables_read_back_from_csv_give_the_same_sentence(tmp_path):
    cube = np.random.default_rng(0).normal(size=(30, 2, 6))
    rows = long_table(cube, (0.0, 4.0))
    table, summary = claims(rows, [M]), summarise(rows, [M])
    table.to_csv(tmp_path / "claims.csv", index=False)
    summary.to_csv(tmp_path / "interference.csv", index=False)
    again = headline(
        pd.read_csv(tmp_path / "claims.csv"), pd.read_csv(tmp_path / "interference.csv")
    )
    assert again == headline(table, summary)


@pytest.mark.parametrize(
    ("edit", "alphas", "said"),
    [
        ("ablate", (0.0, 1.0), "Applying ablate to feature 3 raises m by"),
        (
            "reconstruct",
            (0.0, 1.0),
            "Replacing activations by the SAE's reconstruction raises m by",
        ),
        ("set_to", (0.0, 2.0), "Applying set_to to feature 3 at α = 2 raises m by"),
        ("add(orthogonal_to=domains)", (0.0, 2.0), "Pushing along feature 3 by α = 2 raises m by"),
    ],
)
def test_the_headline_names_an_edit_that_is_no_push_and_what_its_controls_share(edit, alphas, said):
    rows = []
    for direction, family, feature, size in (
        ("feature_3", "candidate", 3, 2.0),
        *((f"c_{i}", "isotropic", None, 0.1) for i in range(40)),
    ):
        for alpha in alphas:
            rows += [
                {
                    "direction": direction, "family": family, "feature": feature, "alpha": alpha,
                    "alpha_unit": "raw", "prompt_id": f"p{p}", "edit": edit,
                    "m": size * alpha + 0.001 * p * alpha,
                }
                for p in range(12)
            ]  # fmt: skip
    table = pd.DataFrame(rows).astype({"feature": "Int64"})
    if edit != "add(orthogonal_to=domains)":
        table["matched_to"] = table["family"].map({"isotropic": "feature_3"})
    sentence = headline(claims(table, ["m"]), summarise(table, ["m"]))
    shared = "norm" if edit.startswith("add") else "‖Δx‖"
    assert sentence.startswith(said)
    assert f"random directions of the same {shared}" in sentence
