"""Random directions that a steered direction is compared with.

A family is a function of the residual width and the vectors seen at the hook; it returns a
function that draws one block of directions. A new family is one more function in FAMILIES.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from saelens_steer.activations import Activations
from saelens_steer.errors import InputError

CHUNK = 4096
"""Vectors read at once."""
BLOCK = 64
"""Directions are drawn so many at a time, so that a larger n only appends to a smaller one."""

Draw = Callable[[torch.Generator], Tensor]
Seen = Tensor | Activations | None
"""Residual vectors at the hook, [tokens, d_model]."""


def draw_controls(
    family: str,
    n: int,
    *,
    d_model: int,
    seed: int,
    vectors: Float[Tensor, "tokens d_model"] | Activations | None = None,
) -> Float[Tensor, "n d_model"]:
    """n unit vectors (float32, CPU) of a family; the first of many equal the few, bit for bit.

    Activations on disk are read piece by piece. Uses a generator of its own. Raises InputError for
    an unknown family or unusable vectors.
    """
    if family not in FAMILIES:
        near = difflib.get_close_matches(family, FAMILIES, n=1, cutoff=0.0)[0]
        raise InputError(f"unknown control family {family!r}; did you mean {near!r}?")
    if n <= 0:
        raise InputError(f"the number of controls must be positive, not {n}")
    draw = FAMILIES[family](d_model, vectors)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.cat([draw(generator) for _ in range(-(-n // BLOCK))])[:n]
    return (drawn / drawn.norm(dim=1, keepdim=True)).float()


def isotropic(d_model: int, vectors: Seen = None) -> Draw:  # noqa: ARG001
    """Every direction is equally likely."""
    return lambda generator: _normal(d_model, generator)


def covariance(d_model: int, vectors: Seen = None) -> Draw:
    """N(0, Σ), Σ the covariance of the vectors: a standard normal times the symmetric root of Σ.

    That root is unique and continuous in Σ, so neither the sign of an eigenvector nor rounding
    in the vectors changes the draw; eigenvalues of 0 (fewer vectors than dimensions) are harmless.
    """
    root = _root(_covariance(_checked(vectors, d_model)))
    return lambda generator: _normal(d_model, generator) @ root


FAMILIES: dict[str, Callable[[int, Seen], Draw]] = {
    "covariance": covariance,
    "isotropic": isotropic,
}


def _normal(d_model: int, generator: torch.Generator) -> Tensor:
    return torch.randn(BLOCK, d_model, generator=generator, dtype=torch.float64)


def _checked(vectors: Seen, d_model: int) -> Activations | Tensor:
    if vectors is None or len(vectors) < 2:
        raise InputError(
            "covariance controls need at least two residual vectors: "
            "pass vectors, or choose isotropic controls"
        )
    width = vectors.d_model if isinstance(vectors, Activations) else vectors.shape[1]
    if width != d_model:
        raise InputError(
            f"the vectors for covariance controls are {width} wide, "
            f"but the residual stream is {d_model}: take them at the hook that is steered"
        )
    return vectors


def _chunks(vectors: Activations | Tensor) -> Iterator[Float[Tensor, "n d_model"]]:
    """The vectors in float64 on the CPU, a piece at a time."""
    pieces = vectors.chunks() if isinstance(vectors, Activations) else vectors.split(CHUNK)
    return (piece.detach().cpu().double() for piece in pieces)


def _covariance(vectors: Activations | Tensor) -> Float[Tensor, "d_model d_model"]:
    """The sample covariance in float64, gathered in chunks to bound memory."""
    mean = sum(chunk.sum(0) for chunk in _chunks(vectors)) / len(vectors)
    assert isinstance(mean, Tensor)
    if not bool(mean.isfinite().all()):
        raise InputError("the vectors for covariance controls must be finite: drop NaN and inf")
    total = mean.new_zeros(len(mean), len(mean))
    for chunk in _chunks(vectors):
        centred = chunk - mean
        total += centred.T @ centred
    if not bool(total.diagonal().sum() > 1e-12 * len(vectors) * mean.square().sum()):
        raise InputError("the vectors for covariance controls are all equal: pass more tokens")
    return total / (len(vectors) - 1)


def _root(sigma: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    """The symmetric square root of a positive semi-definite matrix."""
    values, basis = torch.linalg.eigh(sigma)
    return (basis * values.clamp(min=0).sqrt()) @ basis.T
