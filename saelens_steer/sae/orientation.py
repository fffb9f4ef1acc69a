"""Which axis of a checkpoint's matrices counts features, and which the model's dimensions."""

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
    """A weight and what its name says of its rows: what they count, or None for nothing."""

    name: str
    rows: Axis | None
    weight: Float[Tensor, "rows columns"]

    @property
    def sizes(self) -> tuple[int, int]:
        rows, columns = self.weight.shape
        return rows, columns


@dataclass(frozen=True)
class ShapeEvidence:
    """Something else that says how long an axis is."""

    what: str
    axis: Axis
    size: int


LayerSizes = tuple[int, int]
"""d_in, d_sae."""


def sizes_of(matrices: Sequence[WeightMatrix], evidence: Sequence[ShapeEvidence]) -> LayerSizes:
    """d_in and d_sae, from shapes and evidence, and from names where those leave it open.

    Raises InputError where nothing decides, or where shapes, evidence or names contradict.
    """
    rows, columns = matrices[0].sizes
    fitting = [s for s in {(rows, columns), (columns, rows)} if _fits(s, matrices, evidence)]
    if not fitting:
        raise InputError(f"the shapes contradict each other: {_said(matrices, evidence)}")
    if len(fitting) == 1:
        return fitting[0]
    named = {_by_name(m) for m in matrices if m.rows is not None}
    if len(named) == 1:
        return named.pop()
    why = "the names contradict each other" if named else "nothing says which axis is which"
    raise InputError(f"{why}: {_said(matrices, evidence)}; give the model's width as d_model")


def turned(matrix: WeightMatrix, rows: Axis, sizes: LayerSizes) -> Float[Tensor, "rows columns"]:
    """The matrix with its rows counting what they should. A square one is turned by its name.

    Raises InputError for a square one whose name says nothing.
    """
    d_in, d_sae = sizes
    if d_in == d_sae:
        if matrix.rows is None:
            raise InputError(
                f"{matrix.name} is square ({d_in}), and its name does not say what its rows are: "
                "name it W_dec [d_sae, d_in] or decoder.weight [d_in, d_sae] (W_enc and "
                "encoder.weight: the other way round)"
            )
        as_it_is = matrix.rows == rows
    else:
        as_it_is = matrix.sizes[0] == (d_in if rows == "d_in" else d_sae)
    return matrix.weight if as_it_is else matrix.weight.T


def _fits(
    sizes: LayerSizes, matrices: Sequence[WeightMatrix], evidence: Sequence[ShapeEvidence]
) -> bool:
    length = dict(zip(("d_in", "d_sae"), sizes, strict=True))
    shaped = all(sorted(m.sizes) == sorted(sizes) for m in matrices)
    return shaped and all(e.size == length[e.axis] for e in evidence)


def _by_name(matrix: WeightMatrix) -> LayerSizes:
    rows, columns = matrix.sizes
    return (rows, columns) if matrix.rows == "d_in" else (columns, rows)


def _said(matrices: Sequence[WeightMatrix], evidence: Sequence[ShapeEvidence]) -> str:
    shapes = [f"{m.name} is {list(m.sizes)}" for m in matrices]
    return ", ".join(shapes + [f"{e.what} says {e.axis} = {e.size}" for e in evidence])
