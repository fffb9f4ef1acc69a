"""controls.py: laws that every family of controls obeys, and what is refused."""

from __future__ import annotations

import itertools
import sys
import types
from dataclasses import replace

import pytest
import torch
from saes import random_sae

from saelens_steer.config import FAMILIES as NAMES
from saelens_steer.directions import draw_controls
from saelens_steer.directions.controls import (
    FAMILIES,
    ControlInputs,
    controls_of,
    covariance,
    covariance_of,
)
from saelens_steer.errors import InputError

D = 6


def residuals(n: int, d_model: int = D) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    mixing = torch.randn(d_model, d_model, generator=generator)
    return torch.randn(n, d_model, generator=generator) @ mixing + 7.0


@pytest.fixture(scope="module")
def known() -> ControlInputs:
    """All that a family may read: 32 features, several of which fire equally often."""
    sae, rates = random_sae(D), torch.arange(32) // 4 / 64
    return ControlInputs(
        D, residuals(50), sae.W_dec[[5, 20]].detach(), (5, 20), sae, rates.double()
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_controls_are_unit_float32_vectors(family, known):
    drawn = controls_of(family, 20, known, seed=0)
    assert drawn.shape == (20, D)
    assert drawn.dtype == torch.float32
    torch.testing.assert_close(drawn.norm(dim=1), torch.ones(20))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_first_controls_of_many_equal_the_few(family, known):
    few = controls_of(family, 20, known, seed=3)
    for more in (21, 100, 512):
        assert torch.equal(controls_of(family, more, known, seed=3)[:20], few)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_seed_decides_the_draw_and_another_seed_changes_it(family, known):
    assert torch.equal(controls_of(family, 5, known, 0), controls_of(family, 5, known, 0))
    assert not torch.allclose(controls_of(family, 5, known, 0), controls_of(family, 5, known, 1))


def test_what_takes_no_more_than_residuals_is_drawn_from_these_alone(known):
    vectors = known.vectors
    for family in ("covariance", "isotropic", "token_difference"):
        drawn = draw_controls(family, 70, d_model=D, seed=2, vectors=vectors)
        assert torch.equal(drawn, controls_of(family, 70, known, seed=2))


def test_a_config_knows_every_family():
    assert set(NAMES) == set(FAMILIES)


def test_drawing_leaves_the_global_generator_alone(known):
    before = torch.get_rng_state()
    for family in FAMILIES:
        controls_of(family, 5, known, seed=0)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("n", [4, 500])
def test_covariance_draws_have_the_covariance_of_the_vectors_even_when_these_are_few(n):
    vectors = residuals(n)
    blocks = covariance(ControlInputs(D, vectors), torch.Generator().manual_seed(0))
    drawn = torch.cat(list(itertools.islice(blocks, 600)))
    sigma = torch.cov(vectors.double().T)
    torch.testing.assert_close(covariance_of(vectors), sigma)
    assert (torch.cov(drawn.T) - sigma).norm() < 0.05 * sigma.norm()
    assert torch.linalg.matrix_rank(drawn, rtol=1e-5) == min(n - 1, D)


def test_covariance_controls_hardly_change_when_the_vectors_are_rounded():
    vectors = residuals(200)
    exact = draw_controls("covariance", 9, d_model=D, seed=0, vectors=vectors)
    rounded = draw_controls("covariance", 9, d_model=D, seed=0, vectors=vectors.bfloat16())
    torch.testing.assert_close(exact, rounded, atol=0.02, rtol=0)


def test_covariance_controls_do_not_depend_on_the_mean_of_the_vectors():
    vectors = residuals(200).double()
    here = draw_controls("covariance", 9, d_model=D, seed=0, vectors=vectors)
    there = draw_controls("covariance", 9, d_model=D, seed=0, vectors=vectors + 1e5)
    torch.testing.assert_close(here, there)


@pytest.mark.parametrize(
    ("family", "n", "vectors", "message"),
    [
        ("covarience", 3, None, "did you mean 'covariance'"),
        ("isotropic", 0, None, "n should be at least 1, not 0"),
        ("covariance", 3, None, "covariance controls need at least two activations"),
        ("covariance", 3, torch.ones(1, 6), "at least two activations"),
        ("covariance", 3, torch.ones(9, 6), "all equal"),
        ("covariance", 3, torch.ones(9, 5), "it should be"),
        ("covariance", 3, torch.full((9, 6), float("nan")), "not all finite"),
        ("token_difference", 3, None, "token_difference controls need at least two activations"),
        ("token_difference", 3, torch.ones(9, 5), "it should be"),
        ("token_difference", 3, torch.ones(9, 6), "need tokens that differ"),
        ("permuted", 3, torch.ones(9, 6), "need directions under test"),
        ("feature", 3, torch.ones(9, 6), "need features under test and the firing rates"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_one_sentence(family, n, vectors, message, monkeypatch):
    monkeypatch.setattr("saelens_steer.directions.controls.TRIES", 3)
    with pytest.raises(InputError, match=message):
        draw_controls(family, n, d_model=6, seed=0, vectors=vectors)


@pytest.mark.parametrize("lacking", [{"sae": None}, {"rates": None}, {"features": (5, None)}])
def test_features_are_no_controls_of_what_has_no_rate(known, lacking):
    with pytest.raises(InputError, match="sweep features of an SAE, or choose other controls"):
        controls_of("feature", 3, replace(known, **lacking), seed=0)


FLAWED = {
    "zero": (torch.zeros(4, 6), "yields directions that are zero or not finite"),
    "nan": (torch.full((4, 6), torch.nan), "yields directions that are zero or not finite"),
    "narrow": (torch.ones(4, 3), "it should be"),
    "a list": ([[1.0] * 6], "should be a torch tensor or a numpy array"),
    "none at all": (None, "yields no direction"),
}


@pytest.mark.parametrize("name", FLAWED)
def test_a_family_of_your_own_that_yields_no_usable_direction_is_refused(
    name, monkeypatch, unchecked
):
    block, message = FLAWED[name]
    module = types.ModuleType("flawed_family")
    module.draw = lambda known, generator: iter([] if block is None else [block])
    monkeypatch.setitem(sys.modules, "flawed_family", module)
    with pytest.raises(InputError, match=message):
        draw_controls("flawed_family:draw", 3, d_model=6, seed=0)
