"""Tensor types with TransformerLens's axis names, which beartype checks in the tests; vectors
that callers give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import SupportsIndex

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from saelens_steer.errors import InputError

Tokens = Int[Tensor, "batch pos"]
"""Token ids, left-padded."""
Mask = Bool[Tensor, "batch pos"]
"""True at real tokens, False at padding; or True at positions that an edit changes."""
Resid = Float[Tensor, "batch pos d_model"]
"""A residual-stream activation at one hook."""
Logits = Float[Tensor, "batch d_vocab"]
"""Next-token logits at the last position of each row, float32."""
PerRow = Float[Tensor, " batch"]
"""One number for each row of a batch."""
Direction = Float[Tensor, " d_model"]
"""A direction in the residual stream."""
Vectors = Float[Tensor, "n d_model"]
"""Activations or directions, one per row."""
Kept = Bool[Tensor, " n"]
"""True at the vectors that are kept."""

VectorLike = Tensor | np.ndarray
"""Vectors of torch or numpy, [d_model] or [n, d_model], of any real dtype and on any device."""
FeatureLike = SupportsIndex | Sequence[SupportsIndex] | np.ndarray
"""One feature index or several; integers of numpy and torch are indices too."""


def as_floats(name: str, given: VectorLike, dtype: torch.dtype = torch.float32) -> Tensor:
    """The argument `name` as a tensor of floats. Raises InputError unless it holds numbers."""
    if isinstance(given, np.ndarray) and given.dtype.kind in "fiu":
        wide = dtype == torch.float64
        given = torch.from_numpy(given.astype(np.float64 if wide else np.float32))
    if isinstance(given, Tensor) and not (given.is_complex() or given.dtype == torch.bool):
        return given.detach().to(dtype)
    if isinstance(given, Tensor | np.ndarray):
        raise InputError(f"{name} has dtype {given.dtype}: convert it to floats")
    raise InputError(
        f"{name} should be a torch tensor or a numpy array, not {type(given).__name__}"
    )


def as_vectors(
    name: str, given: VectorLike, d_model: int, dtype: torch.dtype = torch.float32
) -> Vectors:
    """The argument `name` as [n, d_model] on the CPU; one vector [d_model] becomes [1, d_model].

    Raises InputError for another shape or dtype.
    """
    vectors = as_floats(name, given, dtype)
    if vectors.ndim not in (1, 2) or vectors.shape[-1] != d_model or not len(vectors):
        raise InputError(
            f"{name} has shape {list(vectors.shape)}: it should be [n, {d_model}], or [{d_model}]"
        )
    return torch.atleast_2d(vectors).cpu()
