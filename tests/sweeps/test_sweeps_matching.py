"""Controls do as much as what they are compared with: as long a push, or as many nats of KL."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

import saelens_steer as ss
from saelens_steer.config import MarginMetric
from saelens_steer.evidence import claims
from saelens_steer.metrics import resolve_metrics
from saelens_steer.steering import feature_directions, matched_controls, per_candidate_controls
from saelens_steer.sweeps import LogitSweep, Store, UnsteeredPass, grid
from saelens_steer.sweeps.measurement import generating
from saelens_steer.sweeps.strengths import matched_steps

HOOK = "blocks.2.hook_resid_pre"
TEXTS = [f"sum of {i} numbers and {i} more" for i in range(4)]
MARGIN = MarginMetric.model_validate({"margin": {"name": "m", "target": {"ids": [40, 41]}}})
SMALL = {"features": [3, 5], "n_controls": 3, "metrics": [MARGIN, "kl"]}
CROSSED = {
    "unit raw by KL": {"alpha_unit": "raw", "match": "kl", "alphas": [-1.0, 0.5]},
    "unit kl by norm": {"alpha_unit": "kl", "match": "norm", "alphas": [-0.2, 0.05]},
}


@pytest.fixture(scope="module", params=CROSSED)
def crossed(request, random_model, small_sae):
    return ss.sweep(random_model, small_sae, TEXTS, **SMALL, **CROSSED[request.param])


def beside(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """The mean of a column under each control at each α, and under its candidate there."""
    moved = rows[rows["alpha"] != 0]
    means = moved.groupby(["direction", "alpha"])[column].mean()
    whose = moved.drop_duplicates("direction").set_index("direction")["matched_to"].dropna()
    found = [
        (means[name, alpha], means[own, alpha])
        for name, own in whose.items()
        for alpha in sorted(set(moved["alpha"]))
    ]
    return pd.DataFrame(found, columns=["control", "candidate"])


def test_each_candidate_has_controls_of_its_own_under_its_name(crossed):
    rows = crossed.rows
    own = rows[rows["family"] == "covariance"].drop_duplicates("direction")
    assert own["matched_to"].value_counts().to_dict() == {"feature_3": 3, "feature_5": 3}
    assert all(row.direction.endswith(f"_of_{row.matched_to}") for row in own.itertuples())
    assert rows.loc[rows["family"] == "candidate", "matched_to"].isna().all()
    assert (crossed.claims["n_controls"] == 3).all()
    kept = crossed.summary.drop_duplicates("direction").set_index("direction")["matched_to"]
    assert kept.dropna().to_dict() == own.set_index("direction")["matched_to"].to_dict()


def test_by_kl_controls_have_the_mean_kl_of_their_candidate_at_the_same_strength(
    random_model, small_sae
):
    found = ss.sweep(random_model, small_sae, TEXTS, **SMALL, **CROSSED["unit raw by KL"])
    kl = beside(found.rows, "kl")
    assert len(kl) == 2 * 3 * 2 and kl["candidate"].nunique() == 4
    assert (kl["control"] / kl["candidate"] - 1).abs().max() <= 0.02 + 1e-4
    tested = found.rows.query("family == 'candidate' and alpha != 0")
    natural = ss.sweep(random_model, small_sae, TEXTS, **SMALL, alphas=[-1.0, 0.5])
    plain = natural.rows.query("family == 'candidate' and alpha != 0")
    assert tested["m"].to_numpy() == pytest.approx(plain["m"].to_numpy(), abs=1e-5)
    assert "matched_to" not in natural.rows
    assert "same KL (covariance)" in found.headline and "same norm" in natural.headline


def test_by_norm_controls_are_pushed_as_far_as_their_candidate_in_units_of_kl(
    random_model, small_sae
):
    found = ss.sweep(random_model, small_sae, TEXTS, **SMALL, **CROSSED["unit kl by norm"])
    push = beside(found.rows, "receipt_push")
    assert push["candidate"].nunique() == 4
    assert push["control"].to_numpy() == pytest.approx(push["candidate"].to_numpy(), rel=1e-5)
    tested = found.rows.query("family == 'candidate' and alpha != 0")
    means = tested.groupby(["direction", "alpha"])["kl"].mean().reset_index()
    assert (means["kl"] / means["alpha"].abs() - 1).abs().max() <= 0.02 + 1e-4
    assert "same norm (covariance)" in found.headline


def test_controls_go_the_way_of_the_sign_of_their_strength(random_model, small_sae):
    tested = feature_directions(small_sae, [3], "raw")
    everything = tested + per_candidate_controls("isotropic", torch.eye(32)[:2], tested)
    sweep = on(random_model, everything, (-1.0, 0.5))
    for in_nats in (False, True):
        steps = matched_steps(sweep, in_nats, 10.0)
        assert [step < 0 for step in steps] == [True, False] * 3
    assert matched_steps(sweep, False, 10.0)[:2] == [-1.0, 0.5]


def on(model, directions, alphas) -> LogitSweep:
    """A sweep of these directions on short prompts."""
    unsteered_pass = UnsteeredPass(model=model, hook_name=HOOK, prompts=[[5, 6, 7, 8], [9, 10, 11]])
    metrics = resolve_metrics(["kl"], model.tokenizer, model.cfg.d_vocab)
    cells = grid(len(directions), alphas)
    return LogitSweep(
        unsteered_pass=unsteered_pass, directions=directions, cells=cells, metrics=metrics
    )


def test_kept_strengths_are_never_those_of_another_target(random_model, small_sae, tmp_path):
    """The same control is stored for a candidate that does more and for one that does less."""
    units, store = torch.eye(32)[:2], Store(tmp_path, "k")
    found = []
    for feature in (3, 5):
        tested = feature_directions(small_sae, [feature], "unit")
        sweep = on(
            random_model, tested + per_candidate_controls("isotropic", units, tested), (1.0,)
        )
        fresh = matched_steps(sweep, False, 10.0)
        assert matched_steps(sweep, False, 10.0, store) == fresh
        assert matched_steps(sweep, False, 10.0, store) == fresh
        found.append(fresh)
    assert found[0][1:] != found[1][1:]


def test_a_push_that_does_nothing_has_controls_that_do_nothing(random_model, small_sae):
    tested = feature_directions(small_sae, [3], "unit")
    sweep = on(
        random_model,
        tested + per_candidate_controls("isotropic", torch.eye(32)[:2], tested),
        (1e-7,),
    )
    assert max(map(abs, matched_steps(sweep, False, 10.0))) < 0.1


def test_what_matches_what_strength_counts_shares_its_controls(random_model, small_sae):
    named = {"alpha_unit": "kl", "match": "kl", "alphas": [0.1]}
    found = ss.sweep(random_model, small_sae, TEXTS, **SMALL, **named)
    left_open = ss.sweep(random_model, small_sae, TEXTS, **SMALL, **(named | {"match": None}))
    pd.testing.assert_frame_equal(found.rows, left_open.rows)
    assert found.rows["direction"].nunique() == 2 + 3


def test_completions_have_controls_of_the_candidates_own_of_the_first_family(small_sae):
    tested = feature_directions(small_sae, [3, 5], "raw")
    units = torch.eye(32)[:4]
    own = (
        tested
        + per_candidate_controls("isotropic", units, tested)
        + per_candidate_controls("permuted", units, tested)
    )
    names = [own.names[i] for i in generating(own, [1], 2)]
    assert names == ["feature_5", "isotropic_0000_of_feature_5", "isotropic_0001_of_feature_5"]
    shared = feature_directions(small_sae, [3, 5], "unit")
    for family in ("isotropic", "permuted"):
        shared += matched_controls(family, units, shared.sizes)
    names = [shared.names[i] for i in generating(shared, [0], 9)]
    assert names == ["feature_3", *(f"isotropic_{i:04d}" for i in range(4))]


def test_no_control_has_the_name_of_a_candidate(small_sae):
    tested = feature_directions(small_sae, [3], "raw")
    controls = matched_controls("feature", torch.eye(32)[:4], tested.sizes)
    assert controls.names[3] == "feature_control_0003"


def test_two_families_in_one_sweep_are_claims_against_the_first_and_a_table_of_both(
    random_model, small_sae
):
    both = {**SMALL, "n_controls": 50, "controls": ["token_difference", "isotropic"]}
    found = ss.sweep(random_model, small_sae, TEXTS, alphas=[-1, 1], alpha_unit="unit", **both)
    assert set(found.claims["controls"]) == {"token_difference"}
    assert "(token_difference)" in found.headline
    table = found.by_family
    assert table["controls"].tolist() == ["token_difference", "isotropic"] * 4
    assert table["direction"].tolist() == ["feature_3"] * 4 + ["feature_5"] * 4
    for family in ("token_difference", "isotropic"):
        own = table[table["controls"] == family].reset_index(drop=True)
        alone = claims(found.rows, found.metrics, controls=family)
        pd.testing.assert_frame_equal(own, alone[list(own.columns)])


def test_every_family_can_be_swept_at_once(random_model, small_sae):
    families = ["covariance", "isotropic", "feature", "permuted", "token_difference"]
    settings = {**SMALL, "controls": families, "alphas": [1.0], "alpha_unit": "unit"}
    found = ss.sweep(random_model, small_sae, TEXTS, **settings)
    assert found.by_family["controls"].unique().tolist() == families
    named = found.rows.drop_duplicates("direction")["direction"]
    assert named.is_unique and "feature_control_0000" in set(named)


def test_a_mapping_draws_a_number_of_each_family(random_model, small_sae):
    numbers = {"isotropic": 20, "permuted": 7}
    settings = {**SMALL, "alphas": [1.0], "alpha_unit": "unit", "n_controls": numbers}
    found = ss.sweep(random_model, small_sae, TEXTS, **settings, controls=[*numbers])
    drawn = found.rows.drop_duplicates("direction")["family"].value_counts()
    assert {family: drawn[family] for family in numbers} == numbers
    assert set(found.claims["controls"]) == {"isotropic"} and set(found.claims["n_controls"]) == {
        20
    }
    alone = {**settings, "n_controls": 20, "controls": "isotropic"}
    pd.testing.assert_frame_equal(
        found.claims, ss.sweep(random_model, small_sae, TEXTS, **alone).claims
    )


def test_without_controls_there_is_no_family_to_compare_with(random_model, small_sae):
    none = {**SMALL, "n_controls": 0, "controls": ["permuted", "isotropic"], "match": "kl"}
    found = ss.sweep(random_model, small_sae, TEXTS, alphas=[1.0], **none)
    assert found.by_family.empty and (found.claims["n_controls"] == 0).all()
    assert "the effect cannot be tested" in found.headline


def test_feature_controls_of_vectors_of_ones_own_are_refused(random_model, small_sae):
    settings = {**SMALL, "features": None, "controls": "feature", "alphas": [1.0]}
    with pytest.raises(ss.InputError, match="matched to features of an SAE"):
        ss.sweep(random_model, small_sae, TEXTS, directions=torch.eye(32)[:1], **settings)
