from __future__ import annotations

import pytest
import torch

from saelens_steer.errors import InputError
from saelens_steer.evidence import draw_controls
from saelens_steer.evidence.controls import FAMILIES, _covariance, covariance


def residuals(n: int, d_model: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    mixing = torch.randn(d_model, d_model, generator=generator)
    return torch.randn(n, d_model, generator=generator) @ mixing + 7.0


@pytest.mark.parametrize("family", FAMILIES)
def test_controls_are_unit_float32_vectors(family):
    drawn = draw_controls(family, 70, d_model=6, seed=0, vectors=residuals(50))
    assert drawn.shape == (70, 6)
    assert drawn.dtype == torch.float32
    torch.testing.assert_close(drawn.norm(dim=1), torch.ones(70))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_first_controls_of_many_equal_the_few(family):
    many = draw_controls(family, 512, d_model=6, seed=3, vectors=residuals(50))
    few = draw_controls(family, 100, d_model=6, seed=3, vectors=residuals(50))
    assert torch.equal(many[:100], few)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_seed_decides_the_draw_and_another_seed_changes_it(family):
    def draw(seed: int) -> torch.Tensor:
        return draw_controls(family, 5, d_model=6, seed=seed, vectors=residuals(50))

    assert torch.equal(draw(0), draw(0))
    assert not torch.allclose(draw(0), draw(1))


def test_drawing_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    draw_controls("covariance", 5, d_model=6, seed=0, vectors=residuals(50))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("n", [4, 500])
def test_covariance_draws_have_the_covariance_of_the_vectors_even_when_these_are_few(n):
    vectors = residuals(n)
    draw = covariance(6, vectors)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.cat([draw(generator) for _ in range(600)])
    sigma = torch.cov(vectors.double().T)
    torch.testing.assert_close(_covariance(vectors), sigma)
    assert (torch.cov(drawn.T) - sigma).norm() < 0.05 * sigma.norm()
    assert torch.linalg.matrix_rank(drawn, rtol=1e-5) == min(n - 1, 6)


def test_covariance_controls_hardly_change_when_the_vectors_are_rounded():
    vectors = residuals(200)
    exact = draw_controls("covariance", 9, d_model=6, seed=0, vectors=vectors)
    rounded = draw_controls("covariance", 9, d_model=6, seed=0, vectors=vectors.bfloat16())
    torch.testing.assert_close(exact, rounded, atol=0.02, rtol=0)


def test_covariance_controls_do_not_depend_on_the_mean_of_the_vectors():
    vectors = residuals(200).double()
    here = draw_controls("covariance", 9, d_model=6, seed=0, vectors=vectors)
    there = draw_controls("covariance", 9, d_model=6, seed=0, vectors=vectors + 100)
    torch.testing.assert_close(here, there)


@pytest.mark.parametrize(
    ("family", "n", "vectors", "message"),
    [
        ("covarience", 3, None, "did you mean 'covariance'"),
        ("isotropic", 0, None, "must be positive"),
        ("covariance", 3, None, "at least two residual vectors"),
        ("covariance", 3, torch.ones(1, 6), "at least two residual vectors"),
        ("covariance", 3, torch.ones(9, 6), "all equal"),
        ("covariance", 3, torch.ones(9, 5), "5 wide, but the residual stream is 6"),
        ("covariance", 3, torch.full((9, 6), float("nan")), "must be finite"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_one_sentence(family, n, vectors, message):
    with pytest.raises(InputError, match=message):
        draw_controls(family, n, d_model=6, seed=0, vectors=vectors)
