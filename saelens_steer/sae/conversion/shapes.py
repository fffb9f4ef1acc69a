"""The sizes and orientation of a checkpoint's matrices, as far as shapes and names tell."""

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
    """A weight, and the axis that its rows are by the convention of its name (None: unknown)."""

    name: str
    rows: Axis | None
    weight: Float[Tensor, "rows columns"]

    @property
    def sizes(self) -> tuple[int, int]:
        rows, columns = self.weight.shape
        return rows, columns


@dataclass(frozen=True)
class ShapeEvidence:
    """The length of an axis, as something else in the checkpoint gives it."""

    source: str
    axis: Axis
    size: int


LayerSizes = tuple[int, int]
"""d_in, d_sae."""


def sizes_of(matrices: Sequence[WeightMatrix], evidence: Sequence[ShapeEvidence]) -> LayerSizes:
    """d_in and d_sae, from shapes and evidence, and from names if those leave it open.

    Raises InputError if nothing decides, or shapes, evidence or names contradict each other.
    """
    rows, columns = matrices[0].sizes
    fitting = [s for s in {(rows, columns), (columns, rows)} if _fits(s, matrices, evidence)]
    if not fitting:
        raise InputError(f"the shapes contradict each other: {_said(matrices, evidence)}")
    if len(fitting) == 1:
        return fitting[0]
    transposed = {(m.sizes[1], m.sizes[0]) for m in matrices if m.rows == "d_sae"}
    named = transposed | {m.sizes for m in matrices if m.rows == "d_in"}
    if len(named) == 1:
        return named.pop()
    why = "the names contradict each other" if named else "nothing says which axis is which"
    raise InputError(f"{why}: {_said(matrices, evidence)}; give the model's width as d_model")


def turned(matrix: WeightMatrix, rows: Axis, sizes: LayerSizes) -> Float[Tensor, "rows columns"]:
    """The matrix with `rows` as its first axis. A square one is turned by its name.

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


def _said(matrices: Sequence[WeightMatrix], evidence: Sequence[ShapeEvidence]) -> str:
    shapes = [f"{m.name} is {list(m.sizes)}" for m in matrices]
    return ", ".join(shapes + [f"{e.source} says {e.axis} = {e.size}" for e in evidence])
