"""Infer sizes and orientation of a checkpoint's matrices from shapes and names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from saelens_steer.errors import InputError

Axis = Literal["d_in", "d_sae"]


@dataclass(frozen=True)
class WeightMatrix:
    """A weight, and the axis of its rows by its name's convention (None: unknown)."""

    name: str
    rows: Axis | None
    weight: Float[Tensor, "rows columns"]

    @property
    def sizes(self) -> tuple[int, int]:
        rows, columns = self.weight.shape
        return rows, columns


@dataclass(frozen=True)
class ShapeEvidence:
    """The length of an axis according to `source`: a bias, a setting or the model."""

    source: str
    axis: Axis
    size: int


LayerSizes = tuple[int, int]
"""d_in, d_sae."""


def sizes_of(matrices: Sequence[WeightMatrix], evidence: Sequence[ShapeEvidence]) -> LayerSizes:
    """d_in and d_sae from shapes and evidence, or from names if those are ambiguous.

    Raises InputError if the sizes stay ambiguous, or if shapes, evidence or names contradict.
    """
    rows, columns = matrices[0].sizes
    consistent = [s for s in {(rows, columns), (columns, rows)} if _fits(s, matrices, evidence)]
    if not consistent:
        raise InputError(f"the shapes contradict each other: {_listed(matrices, evidence)}")
    if len(consistent) == 1:
        return consistent[0]
    transposed = {(m.sizes[1], m.sizes[0]) for m in matrices if m.rows == "d_sae"}
    named = transposed | {m.sizes for m in matrices if m.rows == "d_in"}
    if len(named) == 1:
        return named.pop()
    why = "the names contradict each other" if named else "cannot tell which axis is which"
    raise InputError(f"{why}: {_listed(matrices, evidence)}; give the model's width as d_model")


def oriented(matrix: WeightMatrix, rows: Axis, sizes: LayerSizes) -> Float[Tensor, "rows columns"]:
    """The matrix with `rows` as its first axis; a square one is oriented by its name.

    Raises InputError for a square matrix without a known name.
    """
    d_in, d_sae = sizes
    if d_in == d_sae:
        if matrix.rows is None:
            raise InputError(
                f"{matrix.name} is square ({d_in}), and its name does not say what its rows are: "
                "name it W_dec [d_sae, d_in] or decoder.weight [d_in, d_sae] (encoders: W_enc "
                "[d_in, d_sae] or encoder.weight [d_sae, d_in])"
            )
        is_oriented = matrix.rows == rows
    else:
        is_oriented = matrix.sizes[0] == (d_in if rows == "d_in" else d_sae)
    return matrix.weight if is_oriented else matrix.weight.T


def _fits(
    sizes: LayerSizes, matrices: Sequence[WeightMatrix], evidence: Sequence[ShapeEvidence]
) -> bool:
    length = dict(zip(("d_in", "d_sae"), sizes, strict=True))
    shaped = all(sorted(m.sizes) == sorted(sizes) for m in matrices)
    return shaped and all(e.size == length[e.axis] for e in evidence)


def _listed(matrices: Sequence[WeightMatrix], evidence: Sequence[ShapeEvidence]) -> str:
    shapes = [f"{m.name} is {list(m.sizes)}" for m in matrices]
    return ", ".join(shapes + [f"{e.source} says {e.axis} = {e.size}" for e in evidence])
