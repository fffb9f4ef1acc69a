"""Directions that a call names: vectors, probes, files and sums, with or without an SAE."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import saelens_steer as ss
from saelens_steer.sweeps import Measurement

HOOK = "blocks.2.hook_resid_pre"
TEXTS = [ss.Prompt("1", "the sum of two", "a"), ss.Prompt("2", "def add(a, b):", "b")]
QUIET = {"alphas": [2.0], "n_controls": 2, "controls": "isotropic"}


@pytest.fixture(scope="module")
def vector(random_model):
    return torch.randn(random_model.cfg.d_model, generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def swept(random_model, small_sae):
    def run(**given):
        return ss.sweep(random_model, given.pop("sae", small_sae), TEXTS, **{**QUIET, **given})

    return run


def kl_of(result: ss.Result, name: str):
    """The KL of one direction under test."""
    rows = result.rows
    return rows.loc[(rows["direction"] == name) & (rows["family"] == "candidate"), "kl"].to_numpy()


def test_names_stand_in_rows_claims_and_headline_beside_features(swept, vector):
    result = swept(features=[3], directions={"caa": vector, "against": -vector})
    assert result.claims["direction"].tolist() == ["feature_3", "caa", "against"]
    assert result.claims["feature"].isna().tolist() == [False, True, True]
    assert set(result.summary["direction"]) >= {"feature_3", "caa", "against"}
    alone = swept(features=[3])
    np.testing.assert_allclose(kl_of(result, "feature_3"), kl_of(alone, "feature_3"), rtol=1e-4)
    assert any(name in result.headline for name in ("feature 3", "caa", "against"))


@pytest.mark.parametrize(("n", "said"), [(39, True), (40, False), (0, False)])
def test_too_few_controls_for_a_claim_are_said_before_the_sweep(
    swept, vector, capsys, monkeypatch, n, said
):
    begun: list[str] = []
    rows = Measurement.logit_rows

    def noting(self, *args):
        begun.append(capsys.readouterr().err)
        return rows(self, *args)

    monkeypatch.setattr(Measurement, "logit_rows", noting)
    result = swept(directions={"v": vector, "w": -vector}, n_controls=n)
    need = "claims about 2 directions need at least 40 controls but have 39"
    assert (need in begun[0]) == said
    assert any(need in sentence for sentence in result.warnings) == said


FORMS = {
    "numpy": lambda v: {"v": v.numpy()},
    "float64": lambda v: {"v": v.double()},
    "a row": lambda v: {"v": v[None].numpy()},
    "with a gradient": lambda v: {"v": v.clone().requires_grad_()},
    "a probe": lambda v: {"v": ss.Probe(v, 0.0)},
    "a file": lambda v: ss.SteeringVectors({"v": v, "w": -v}, {"v": HOOK, "w": HOOK}),
    "another name of the hook": lambda v: ss.SteeringVectors(
        {"v": v, "w": v}, {"v": "blocks.1.hook_resid_post", "w": "blocks.0.hook_resid_pre"}
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_vector_is_swept_alike(swept, vector, form):
    wanted = kl_of(swept(directions=vector), "direction_0")
    found = kl_of(swept(directions=FORMS[form](vector)), "v")
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int32, torch.int8])
def test_a_vector_of_another_dtype_is_the_vector_of_its_values(swept, vector, dtype):
    given = (8 * vector).to(dtype)
    one, other = (swept(directions={"v": v}) for v in (given, given.float()))
    assert np.array_equal(kl_of(one, "v"), kl_of(other, "v"))


def test_a_probe_alone_is_called_probe(swept, vector):
    assert len(kl_of(swept(directions=ss.Probe(vector, 1.0)), "probe"))


@pytest.mark.parametrize(
    "weights", [{3: 1.0, 17: -0.5}, {np.int64(0): 2}, {5: np.float32(0.5), 6: 1}]
)
def test_a_sum_of_features_is_the_weighted_sum_of_their_decoder_rows(swept, small_sae, weights):
    by_hand = sum(float(w) * small_sae.W_dec[int(f)].detach() for f, w in weights.items())
    result = swept(directions={"sum": weights, "by hand": by_hand}, alpha_unit="unit")
    assert result.claims["feature"].isna().all()
    np.testing.assert_allclose(kl_of(result, "sum"), kl_of(result, "by hand"), rtol=1e-5)


def test_without_an_sae_directions_are_swept_as_with_one(swept, vector):
    alone = swept(sae=None, directions=vector, hook_name=HOOK, controls="covariance")
    both = swept(directions=vector, controls="covariance")
    assert alone.rows.drop(columns="receipt_feature_act").equals(
        both.rows.drop(columns="receipt_feature_act")
    )


def test_without_an_sae_the_hook_is_that_of_the_vectors(swept, vector):
    held = ss.SteeringVectors({"v": vector}, {"v": HOOK})
    assert set(swept(sae=None, directions=held).rows["hook_name"]) == {HOOK}
    removed = swept(sae=None, directions=held, edit="project_out", alphas=[0, 1])
    assert len(kl_of(removed, "v"))


ELSEWHERE = {"v": "blocks.1.hook_resid_pre", "w": "blocks.3.hook_resid_pre"}


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        (lambda v: {}, r"nothing to sweep: pass features=\[…\] or directions=…"),
        (lambda v: {"features": []}, "nothing to sweep"),
        (lambda v: {"directions": {}}, "nothing to sweep"),
        (lambda v: {"directions": {"caa": 0 * v}}, r"directions\['caa'\] is zero"),
        (
            lambda v: {"directions": {"a": v, "b": v * torch.nan}},
            r"directions\['b'\] has entries that are not finite",
        ),
        (
            lambda v: {"directions": {"a": v / 0}},
            r"directions\['a'\] has entries that are not finite",
        ),
        (lambda v: {"directions": {"s": {3: 0.0}}}, "direction s is zero"),
        (lambda v: {"directions": {"w": v[:3]}}, r"directions\['w'\] has shape \[3\]"),
        (lambda v: {"directions": {"m": torch.stack([v, v])}}, "holds 2 vectors: give each a name"),
        (lambda v: {"directions": {"l": v.tolist()}}, "torch tensor or a numpy array, not list"),
        (lambda v: {"directions": {3: v}}, "has the name 3: names are strings"),
        (lambda v: {"directions": {" ": v}}, "has the name ' '"),
        (lambda v: {"directions": {"feature_3": v}, "features": 3}, "are called 'feature_3'"),
        (lambda v: {"directions": {"isotropic_up": v}}, "'isotropic_up' is a name for controls"),
        (lambda v: {"directions": {"s": {}}}, "is empty: write weights of features"),
        (lambda v: {"directions": {"s": {3: "a"}}}, "should hold numbers"),
        (lambda v: {"directions": {"s": {3: 1, 99: 1}}}, "feature 99 is out of range"),
        (lambda v: {"directions": {"s": {"3": 1}}}, "should be a whole number, not '3'"),
        (lambda v: {"directions": {"v": v}, "alpha_unit": "max_act"}, "v has no A_max"),
        (lambda v: {"directions": {"s": {3: 1}}, "alpha_unit": "max_act"}, "s has no A_max"),
        (lambda v: {"directions": {"v": v}, "edit": "ablate", "alphas": [0, 1]}, "v is not one"),
        (lambda v: {"directions": {"v": v}, "edit": "scale"}, "scale edits SAE features, and v"),
        (
            lambda v: {"directions": {"v": v}, "features": 3, "controls": "feature"},
            "feature controls are matched to features of an SAE, and v is not one",
        ),
        (
            lambda v: {"directions": ss.SteeringVectors({"v": v, "w": v}, ELSEWHERE)},
            f"there is no vector at {HOOK}, only at blocks.1.hook_resid_pre, blocks.3",
        ),
        (
            lambda v: {"sae": None, "directions": ss.SteeringVectors({"v": v, "w": v}, ELSEWHERE)},
            "the vectors are at blocks.1.hook_resid_pre, blocks.3.hook_resid_pre: give hook_name=",
        ),
        (lambda v: {"sae": None, "directions": v}, "sae is None: give hook_name=, such as"),
        (lambda v: {"sae": None, "features": 3, "hook_name": HOOK}, "pass directions instead"),
        (
            lambda v: {"sae": None, "directions": {"s": {3: 1.0}}, "hook_name": HOOK},
            "is a sum of features, but sae is None",
        ),
        (
            lambda v: {
                **{"sae": None, "directions": v, "hook_name": HOOK},
                **{"edit": "reconstruct", "alphas": [0, 1]},
            },
            "reconstruct.* needs an SAE: pass one",
        ),
    ],
)
def test_what_cannot_be_swept_is_refused_before_any_pass(
    random_model, swept, vector, unchecked, change, hint
):
    def passed(*_):
        raise AssertionError("a forward pass was run")

    handle = random_model.embed.register_forward_pre_hook(passed)
    try:
        with pytest.raises(ss.InputError, match=hint):
            swept(**change(vector))
    finally:
        handle.remove()


# --- sums of vectors outside a sweep


def test_adding_several_vectors_adds_their_sum(vector):
    rows, x = torch.stack([vector, vector.flip(0), -vector]), torch.randn(2, 3, len(vector))
    assert torch.equal(ss.add(rows, 2.0)(x), ss.add(rows.sum(0), 2.0)(x))
    weighted = ss.add(rows.numpy(), [1.0, 2.0, 0.5])(x)
    torch.testing.assert_close(weighted, x + 0.5 * vector + 2 * vector.flip(0))
    assert torch.equal(ss.add(rows[:1])(x), ss.add(rows[0])(x))


def test_options_of_add_act_on_the_sum(vector):
    rows, x = torch.stack([vector, vector.flip(0)]), torch.randn(1, 4, len(vector))
    for options in ({"keep_norm": True}, {"orthogonal_to": rows[0]}):
        assert torch.equal(ss.add(rows, 3.0, **options)(x), ss.add(rows.sum(0), 3.0, **options)(x))


@pytest.mark.parametrize(
    ("shape", "alpha", "hint"),
    [
        ((2, 3, 32), 1.0, r"direction has shape \[2, 3, 32\]"),
        ((0, 32), 1.0, r"direction has shape \[0, 32\]"),
        ((2, 32), [1.0, 2.0, 3.0], "alpha has 3 numbers for 2 directions"),
        ((32,), [1.0, 2.0], "give one number, or one for each direction"),
    ],
)
def test_vectors_and_strengths_that_do_not_pair_are_refused(shape, alpha, hint):
    with pytest.raises(ss.InputError, match=hint):
        ss.add(torch.ones(shape), alpha)
