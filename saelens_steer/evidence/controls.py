"""Unit vectors of a family of controls; a new family is one more function in FAMILIES."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from saelens_steer.activations import Activations
from saelens_steer.errors import InputError
from saelens_steer.evidence.families import (
    Family,
    Known,
    covariance,
    feature,
    isotropic,
    permuted,
    token_difference,
)
from saelens_steer.progress import say

FAMILIES: dict[str, Family] = {
    "covariance": covariance,
    "isotropic": isotropic,
    "feature": feature,
    "permuted": permuted,
    "token_difference": token_difference,
}
OF_ACTIVATIONS = frozenset({"covariance", "feature", "token_difference"})
"""The families that take cached activations."""


def draw_controls(
    family: str,
    n: int,
    *,
    d_model: int,
    seed: int,
    vectors: Float[Tensor, "tokens d_model"] | Activations | None = None,
) -> Float[Tensor, "n d_model"]:
    """`controls_of` for the families that need no more than residual vectors at the hook."""
    return controls_of(family, n, Known(d_model, vectors), seed)


def controls_of(family: str, n: int, known: Known, seed: int) -> Float[Tensor, "n d_model"]:
    """n unit vectors (float32, CPU) of a family; the first of many equal the few, bit for bit.

    Fewer where the family ends before, which is said on stderr. Uses a generator of its own. Raises
    InputError for an unknown family, or one that needs what is not known.
    """
    if family not in FAMILIES:
        near = difflib.get_close_matches(family, FAMILIES, n=1, cutoff=0.0)[0]
        raise InputError(f"unknown control family {family!r}; did you mean {near!r}?")
    if n <= 0:
        raise InputError(f"the number of controls must be positive, not {n}")
    drawn = _first(n, FAMILIES[family](known, torch.Generator().manual_seed(seed)))
    if len(drawn) < n:
        say(f"only {len(drawn)} of the {n} {family} controls asked for: there are no more")
    return (drawn / drawn.norm(dim=1, keepdim=True)).float()


def _first(n: int, blocks: Iterator[Tensor]) -> Tensor:
    """The first n rows of the blocks; no block is drawn that is not needed."""
    drawn, total = list[Tensor](), 0
    for block in blocks:
        drawn.append(block)
        total += len(block)
        if total >= n:
            break
    return torch.cat(drawn)[:n]
