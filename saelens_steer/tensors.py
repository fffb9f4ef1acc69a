"""Tensor types with TransformerLens's axis names, which beartype checks in the tests; vectors
that callers give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import SupportsFloat, SupportsIndex

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
    hint = ": give its .direction" if hasattr(given, "direction") else ""
    if hasattr(given, "W_dec"):
        hint = ": give sae.W_dec[feature]"
    raise InputError(
        f"{name} should be a torch tensor or a numpy array, not {type(given).__name__}{hint}"
    )


def as_numbers(name: str, given: SupportsFloat | Sequence[SupportsFloat] | VectorLike) -> Tensor:
    """The argument `name`, one number or a list, as float32 on the CPU: [] or [n].

    Raises InputError unless all are finite numbers.
    """
    plainly = given.tolist() if isinstance(given, Tensor | np.ndarray | np.generic) else given
    try:
        numbers = torch.as_tensor(plainly, dtype=torch.float32).detach().cpu()
    except (TypeError, ValueError, RuntimeError):
        numbers = None
    if numbers is None or numbers.ndim > 1 or not numbers.isfinite().all():
        raise InputError(f"{name} should be a finite number, or a list of them, not {given!r}")
    return numbers


def first_unfinite(tensor: Tensor) -> int | None:
    """The first index of axis 0 at which floats hold NaN or an infinity; None if they hold none."""
    if not tensor.is_floating_point() or tensor.is_meta:
        return None
    wide = torch.float64 if tensor.dtype == torch.float64 else torch.float32
    if bool(tensor.detach().sum(dtype=wide).isfinite()):  # needs no copy, as `isfinite` does
        return None
    rows = tensor.detach().reshape(len(tensor) if tensor.ndim else 1, -1)
    return next((i for i, row in enumerate(rows) if not bool(row.isfinite().all())), None)


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


def usable_device(name: str) -> str:
    """The device name, with `auto` resolved to cuda if available, else cpu."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as e:
        raise InputError(f"The device {name!r} is not available here; use auto or cpu.") from e
    return name


def as_direction(name: str, given: VectorLike, d_model: int) -> Direction:
    """The argument `name` as one vector [d_model] on the CPU, finite and not zero.

    Raises InputError for anything else.
    """
    vectors = as_vectors(name, given, d_model)
    if len(vectors) > 1:
        raise InputError(
            f"{name} holds {len(vectors)} vectors: give each a name, or their sum, vectors.sum(0)"
        )
    if not bool(vectors.isfinite().all()):
        raise InputError(f"{name} has entries that are not finite numbers: leave it out")
    if not bool(vectors.any()):
        raise InputError(f"{name} is zero, and so has no direction: leave it out")
    return vectors[0]
