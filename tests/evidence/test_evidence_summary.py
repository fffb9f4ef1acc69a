from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from simulated import linear_effects, long_table, small_effects

from saelens_steer.errors import InputError
from saelens_steer.evidence import summarise

M = "math_margin"


@pytest.fixture
def rows() -> pd.DataFrame:
    return long_table(linear_effects(small_effects(6)), n_candidates=2)


def test_each_direction_and_strength_gets_its_mean_its_effect_and_an_interval(rows):
    table = summarise(rows, [M])
    about = ["direction", "family", "feature", "alpha", "alpha_unit", "n"]
    assert list(table.columns) == [*about, M, f"{M}_delta", f"{M}_ci_low", f"{M}_ci_high"]
    means = rows.groupby(["direction", "alpha"])[M].mean()
    for row in table.itertuples():
        assert row.math_margin == pytest.approx(means[row.direction, row.alpha])
        base = means[row.direction, 0.0]
        assert row.math_margin_delta == pytest.approx(means[row.direction, row.alpha] - base)
        assert row.math_margin_ci_low <= row.math_margin_delta <= row.math_margin_ci_high
    assert (table["n"] == 8).all()
    assert table["feature"].dtype == "Int64"


def test_rows_keep_the_order_of_directions_and_strengths_ascend(rows):
    table = summarise(rows.iloc[::-1], [M])
    assert list(table["direction"].unique()) == list(rows["direction"].unique())[::-1]
    assert table["alpha"].tolist() == [-4.0, 0.0, 4.0] * 6


def test_shuffled_rows_give_the_same_table(rows):
    expected = summarise(rows, [M]).sort_values(["direction", "alpha"], ignore_index=True)
    shuffled = summarise(rows.sample(frac=1, random_state=0), [M])
    actual = shuffled.sort_values(["direction", "alpha"], ignore_index=True)
    pd.testing.assert_frame_equal(actual, expected, rtol=1e-9)


def test_samples_of_one_prompt_weigh_as_much_as_one(rows):
    more = rows[rows["prompt_id"] == "p0"]
    low, high = more.assign(**{M: more[M] - 1}), more.assign(**{M: more[M] + 1})
    repeated = pd.concat([rows, low, high])
    pd.testing.assert_frame_equal(summarise(repeated, [M]), summarise(rows, [M]))


def test_a_metric_that_was_measured_for_some_only_is_nan_for_the_rest(rows):
    rows["code_valid"] = np.where(rows["direction"] == "feature_0", 1.0, np.nan)
    table = summarise(rows, ["code_valid", M]).set_index("direction")
    columns = [c for c in table if c.startswith("code_valid")]
    assert table.loc["feature_0", columns].notna().all(axis=None)
    assert table.drop("feature_0")[columns].isna().all(axis=None)
    assert table[M].notna().all()


def test_nullable_and_boolean_columns_are_metrics_too(rows):
    rows["flag"] = rows[M] > 0
    rows["maybe"] = rows["flag"].astype("boolean").mask(rows["prompt_id"] == "p1")
    table = summarise(rows, ["flag", "maybe"])
    assert table["flag"].between(0, 1).all()
    assert table["maybe"].notna().all()


def test_one_control_at_two_norms_is_two_directions(rows):
    rows["matched_norm"] = 1.0
    table = summarise(pd.concat([rows, rows.assign(matched_norm=2.0)]), [M])
    assert len(table) == 2 * 6 * 3
    about = ["direction", "family", "feature", "alpha", "alpha_unit", "n", "matched_norm"]
    assert list(table.columns[:7]) == about


def test_a_direction_without_some_strength_has_no_row_for_it(rows):
    table = summarise(rows[(rows["direction"] != "feature_1") | (rows["alpha"] <= 0)], [M])
    assert table.loc[table["direction"] == "feature_1", "alpha"].tolist() == [-4.0, 0.0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="prompt_id"), "has no column 'prompt_id'"),
        (lambda t: t.rename(columns={M: "math_margins"}), "did you mean 'math_margins'"),
        (lambda t: t.astype({M: str}), "must be numeric"),
        (lambda t: t[t["alpha"] != 0], "no rows at alpha = 0"),
        (lambda t: t.iloc[:0], "has no rows"),
        (lambda t: t.assign(alpha=np.nan), "'alpha' has empty entries"),
        (
            lambda t: t.assign(edit=["add", "set"] * (len(t) // 2)),
            r"mixes values of edit \(add, set\)",
        ),
    ],
)
def test_a_table_that_does_not_fit_is_refused_in_one_sentence(rows, change, message):
    with pytest.raises(InputError, match=message):
        summarise(change(rows), [M])
