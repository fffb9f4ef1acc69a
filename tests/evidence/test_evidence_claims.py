from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest
from simulated import linear_effects, long_table, small_effects

from saelens_steer.errors import InputError
from saelens_steer.evidence import by_family, claims, headline, summarise

M = "math_margin"
COLUMNS = [
    *("direction", "feature", "metric", "effect", "alpha", "ci_low", "ci_high", "T"),
    *("control_quantile", "n_controls", "p_value", "q_value", "verdict"),
    *("sign_rate", "separation", "controls", "n_undefined"),
]


def planted(slope: float, k: int = 100, m: int = 4, **options) -> pd.DataFrame:
    """m candidates of which the first has a slope of our choosing, and k controls."""
    slopes = small_effects(m + k)
    slopes[0] = slope
    return long_table(linear_effects(slopes, **options), n_candidates=m)


def test_a_planted_effect_is_found_and_described():
    table = claims(planted(0.5), [M])
    assert list(table.columns) == COLUMNS
    found = table.iloc[0]
    assert (found["direction"], found["feature"], found["metric"]) == ("feature_0", 0, M)
    assert found["verdict"] == "more than random"
    assert found["p_value"] == 1 / 101
    assert found["q_value"] == pytest.approx(4 / 101)
    assert abs(found["effect"]) == found["T"] == pytest.approx(2.0, abs=0.05)
    assert found["ci_low"] < found["effect"] < found["ci_high"]
    assert found["sign_rate"] == 0
    assert found["separation"] == pytest.approx(4.0, abs=0.1)
    assert found["T"] > found["control_quantile"]
    assert (found["n_controls"], found["controls"]) == (100, "covariance")


def test_an_effect_that_random_directions_have_too_is_not_found():
    table = claims(planted(0.03), [M])
    assert table.loc[0, "ci_low"] > 0 or table.loc[0, "ci_high"] < 0
    assert table.loc[0, "verdict"] == "no more than random"
    assert table.loc[0, "p_value"] > 0.05


@pytest.mark.parametrize("k", [0, 79, 80])
def test_m_claims_need_twenty_controls_each(k):
    table = claims(planted(0.5, k=k), [M])
    testable = k >= 80
    expected = "more than random" if testable else f"not testable with {k} controls"
    assert table.loc[0, "verdict"] == expected
    assert table["p_value"].isna().all() == (k == 0)
    assert table["q_value"].isna().all() == (k == 0)


def test_the_claim_is_made_at_the_strength_where_the_effect_is_largest():
    cube = np.zeros((30, 3, 4)) + np.arange(4)
    cube[0, 0] += [-3, -3, -3, 1]
    cube[0, 2] += 1
    table = claims(long_table(cube), [M])
    assert table.loc[0, ["effect", "alpha", "sign_rate"]].tolist() == [-2.0, -4.0, 0.25]


NULLS = {
    "gaussian": lambda rng, size: rng.normal(size=size),
    "heavy-tailed": lambda rng, size: rng.standard_t(1.5, size=size),
    "few distinct values": lambda rng, size: rng.poisson(0.3, size=size).astype(float),
}


@pytest.mark.nightly
@pytest.mark.parametrize("null", NULLS)
def test_random_directions_in_the_candidates_place_rarely_give_a_claim(null):
    rng = np.random.default_rng(0)
    found = 0
    for seed in range(200):
        slopes = NULLS[null](rng, 532)
        cube = linear_effects(slopes, n_prompts=3, noise=0.0, seed=seed)
        # prompts respond alike to every direction, so the directions share their noise
        cube += slopes[:, None, None] * np.array([-4, 0, 4])[:, None] * rng.normal(size=3)
        table = claims(long_table(cube, n_candidates=20), [M], n_resamples=1)
        assert (table["n_controls"] == 512).all()
        found += (table["q_value"] < 0.05).any()
    assert found <= 14


def test_shuffled_rows_give_the_same_claims():
    rows = planted(0.5)
    shuffled = claims(rows.sample(frac=1, random_state=0), [M])
    actual = shuffled.sort_values("direction", ignore_index=True)
    pd.testing.assert_frame_equal(actual, claims(rows, [M]), rtol=1e-9)


def test_the_interval_of_a_claim_is_that_of_the_summary():
    rows = planted(0.5)
    summary = summarise(rows, [M]).set_index(["direction", "alpha"])
    for claim in claims(rows, [M]).itertuples():
        row = summary.loc[(claim.direction, claim.alpha)]
        assert claim.effect == pytest.approx(row[f"{M}_delta"])
        assert claim.ci_low == pytest.approx(row[f"{M}_ci_low"])
        assert claim.ci_high == pytest.approx(row[f"{M}_ci_high"])


def test_claims_come_direction_by_direction_with_the_metrics_in_order():
    rows = planted(0.5, m=2)
    rows["kl"] = rows["alpha"].abs()
    table = claims(rows, ["kl", M])
    assert table["direction"].tolist() == ["feature_0"] * 2 + ["feature_1"] * 2
    assert table["metric"].tolist() == ["kl", M] * 2


def test_a_metric_measured_for_few_is_tested_among_those_few():
    rows = planted(0.5)
    some = ["feature_0", "feature_2", *(f"covariance_{i:04d}" for i in range(40))]
    rows["code_valid"] = rows[M].where(rows["direction"].isin(some))
    table = claims(rows, ["code_valid"])
    assert table["n_controls"].tolist() == [40] * 4
    assert table.loc[0, "verdict"] == "more than random"
    assert table.loc[1, "verdict"] == table.loc[3, "verdict"] == "not measured"
    assert table.loc[1, ["effect", "alpha", "p_value", "q_value"]].isna().all()
    assert table.loc[0, "q_value"] == pytest.approx(2 / 41)


def test_a_metric_measured_for_no_candidate_makes_no_claim():
    rows = planted(0.5)
    rows["latex_valid"] = np.nan
    table = claims(rows, ["latex_valid"])
    assert (table["verdict"] == "not measured").all()
    assert (table["n_controls"] == 0).all()


def test_a_control_missing_one_strength_does_not_count():
    rows = planted(0.5)
    gap = (rows["direction"] == "covariance_0003") & (rows["alpha"] == 4)
    assert (claims(rows.assign(**{M: rows[M].mask(gap)}), [M])["n_controls"] == 99).all()
    assert (claims(rows[~gap], [M])["n_controls"] == 99).all()


def test_a_one_sided_metric_that_starts_at_zero_is_tested_all_the_same():
    rows = planted(0.5)
    rows["kl"] = (rows[M] - rows.groupby("prompt_id")[M].transform("first")) ** 2
    rows.loc[rows["alpha"] == 0, "kl"] = 0.0
    rows.loc[(rows["direction"] == "feature_0") & (rows["alpha"] != 0), "kl"] += 50
    table = claims(rows, ["kl"])
    assert table.loc[0, "verdict"] == "more than random"
    assert table.loc[0, "effect"] > 0


def test_candidates_meet_only_controls_of_their_own_norm():
    rows = planted(0.1, k=200, m=2)
    number = rows["direction"].str[-4:].str.lstrip("_").where(rows["family"] != "candidate", "0")
    small = (number.astype(int) < 100) & (rows["direction"] != "feature_1")
    rows["matched_norm"] = pd.array(np.where(small, 1.0, 3.0 * (1 + 1e-8)), dtype="Float64")
    rows.loc[rows["direction"] == "feature_1", "matched_norm"] = 3.0
    large = (rows["family"] != "candidate") & ~small & (rows["alpha"] != 0)
    rows.loc[large, M] += 100
    table = claims(rows, [M])
    assert (table["n_controls"] == 100).all()
    assert table.loc[0, "p_value"] == 1 / 101
    assert table.loc[1, "p_value"] == 1.0


def test_several_families_of_controls_are_never_pooled():
    rows = planted(0.5)
    other = rows[rows["family"] == "covariance"].copy()
    other["direction"] = other["direction"].str.replace("covariance", "isotropic")
    both = pd.concat([rows, other.assign(family="isotropic")])
    with pytest.raises(InputError, match=r"families \(covariance, isotropic\): choose one"):
        claims(both, [M])
    with pytest.raises(InputError, match="no 'feature' controls; known: covariance, isotropic"):
        claims(both, [M], controls="feature")
    table = claims(both, [M], controls="isotropic")
    assert set(table["controls"]) == {"isotropic"}
    assert (table["n_controls"] == 100).all()


def with_owners(rows: pd.DataFrame) -> pd.DataFrame:
    """Half of the controls are feature_0's own, the others feature_1's, which move far."""
    number = rows["direction"].str[-4:].str.lstrip("_").where(rows["family"] != "candidate")
    first = number.astype(float) < 50
    whose = np.where(first, "feature_0", "feature_1")
    rows["matched_to"] = pd.Series(whose, dtype="string").where(number.notna())
    rows.loc[~first & number.notna() & (rows["alpha"] != 0), M] += 100
    return rows


def test_controls_of_ones_own_are_compared_with_their_candidate_alone():
    rows = with_owners(planted(0.1, k=100, m=2))
    table = claims(rows, [M])
    assert table["n_controls"].tolist() == [50, 50]
    assert table["p_value"].tolist() == [1 / 51, 1.0]
    none = rows.assign(matched_to=pd.Series(pd.NA, index=rows.index, dtype="string"))
    shared = claims(none, [M])
    assert shared["n_controls"].tolist() == [100, 100]
    pd.testing.assert_frame_equal(shared, claims(none.drop(columns="matched_to"), [M]))


def test_whose_a_control_is_survives_the_summary_and_a_file(tmp_path):
    rows = with_owners(planted(0.1, k=100, m=2))
    summary, table = summarise(rows, [M]), claims(rows, [M])
    summary.to_csv(tmp_path / "interference.csv", index=False)
    again = pd.read_csv(tmp_path / "interference.csv")
    assert headline(table, again) == headline(table, summary)
    assert "of 50 random directions of the same KL" in headline(table, summary)


def two_families() -> pd.DataFrame:
    """Covariance controls, and isotropic ones that move far."""
    rows = planted(0.5)
    other = rows[rows["family"] == "covariance"].copy()
    other["direction"] = other["direction"].str.replace("covariance", "isotropic")
    other.loc[other["alpha"] != 0, M] += 100
    return pd.concat([rows, other.assign(family="isotropic")])


def test_by_family_holds_the_claims_against_each_family():
    rows = two_families()
    rows["kl"] = rows["alpha"].abs()
    table = by_family(rows, [M, "kl"])
    assert len(table) == 4 * 2 * 2
    assert table["controls"].tolist() == ["covariance", "isotropic"] * 8
    for family in ("covariance", "isotropic"):
        own = table[table["controls"] == family].reset_index(drop=True)
        alone = claims(rows, [M, "kl"], controls=family)
        pd.testing.assert_frame_equal(own, alone[list(own.columns)])
    verdicts = table.loc[(table["metric"] == M), "verdict"].tolist()
    assert verdicts[:2] == ["more than random", "no more than random"]


def test_without_controls_by_family_is_empty():
    assert by_family(planted(0.5, k=0), [M]).empty


def test_a_table_of_controls_alone_makes_no_claims():
    table = claims(planted(0.5, m=0, k=5), [M])
    assert table.empty
    assert list(table.columns) == COLUMNS


def test_the_tables_of_a_whole_run_take_less_than_two_seconds():
    cube = linear_effects(small_effects(532), (-4.0, -2.0, 0.0, 2.0, 4.0), n_prompts=48)
    rows = long_table(cube, (-4.0, -2.0, 0.0, 2.0, 4.0), n_candidates=20)
    metrics = [f"metric_{i}" for i in range(8)]
    rows = rows.assign(**dict.fromkeys(metrics, rows[M]))
    start = time.perf_counter()
    summarise(rows, metrics)
    claims(rows, metrics)
    assert time.perf_counter() - start < 2.0
