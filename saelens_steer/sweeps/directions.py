"""What is swept: vectors with names, the features under test beside their controls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from sae_lens import SAE
from torch import Tensor

from saelens_steer.errors import InputError
from saelens_steer.sae import check_feature
from saelens_steer.tensors import Directions as Vectors

CANDIDATE = "candidate"
"""The family of what is under test; controls carry the name of their own family."""
NORM_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Directions:
    """Named steering vectors, each as it is added at α = 1: vectors [n, d_model], float32, CPU."""

    names: tuple[str, ...]
    families: tuple[str, ...]
    features: tuple[int | None, ...]
    vectors: Vectors

    def __len__(self) -> int:
        return len(self.names)

    def __add__(self, other: Directions) -> Directions:
        return Directions(
            self.names + other.names,
            self.families + other.families,
            self.features + other.features,
            torch.cat([self.vectors, other.vectors]),
        )

    @property
    def norms(self) -> Float[Tensor, " n"]:
        """‖vector‖, the size a control is matched to."""
        return self.vectors.norm(dim=-1)

    def take(self, rows: Sequence[int]) -> Directions:
        """The directions with these indices, in that order."""
        return Directions(
            tuple(self.names[i] for i in rows),
            tuple(self.families[i] for i in rows),
            tuple(self.features[i] for i in rows),
            self.vectors[list(rows)],
        )


def feature_directions(sae: SAE[Any], features: Sequence[int], alpha_unit: str) -> Directions:
    """W_dec[f] of each feature (`raw`), or its unit vector (`unit`). Raises InputError."""
    rows = [check_feature(sae, f) for f in features]
    vectors = sae.W_dec[rows].detach().float().cpu()
    if alpha_unit == "unit":
        vectors = vectors / vectors.norm(dim=-1, keepdim=True)
    names = tuple(f"feature_{f}" for f in rows)
    return Directions(names, (CANDIDATE,) * len(rows), tuple(rows), vectors)


def plain_directions(vectors: Vectors) -> Directions:
    """Vectors of the caller's own, put in the features' place."""
    n = len(vectors)
    names = tuple(f"direction_{i}" for i in range(n))
    return Directions(names, (CANDIDATE,) * n, (None,) * n, vectors.detach().float().cpu())


def matched_controls(family: str, unit_vectors: Vectors, norms: Float[Tensor, " m"]) -> Directions:
    """The controls scaled to each distinct norm under test, so that a push is of the same size.

    With one norm (a decoder of unit rows) all candidates share the controls; otherwise there is a
    full set of controls for each norm.
    """
    if not torch.isfinite(norms).all() or bool((norms == 0).any()):
        raise InputError("a direction under test has norm 0 or is not finite: nothing to match")
    sizes = distinct_norms(norms)
    n = len(unit_vectors)
    suffixes = [""] if len(sizes) == 1 else [f"_size{j}" for j in range(len(sizes))]
    names = tuple(f"{family}_{i:04d}{suffix}" for suffix in suffixes for i in range(n))
    vectors = torch.cat([unit_vectors.float() * size for size in sizes])
    return Directions(names, (family,) * len(names), (None,) * len(names), vectors)


def distinct_norms(norms: Float[Tensor, " m"]) -> list[float]:
    """The norms, ascending, with those equal to 1e-6 (relative) counted once."""
    found: list[float] = []
    for norm in sorted(norms.tolist()):
        if not found or norm - found[-1] > NORM_TOLERANCE * norm:
            found.append(norm)
    return found
