"""What the shapes of a checkpoint say: architecture, orientation, sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor

from saelens_steer.errors import InputError

STATED_BY = (
    *("architecture", "dict_class", "sae_type", "sae_class"),
    *("activation", "activation_fn", "activation_fn_str"),
)
MEANT = (
    ("batchtopk", "jumprelu"),
    ("jumprelu", "jumprelu"),
    ("topk", "topk"),
    ("gated", "gated"),
    ("relu", "standard"),
    ("standard", "standard"),
)
"""What any of these settings contains, and what it means: `activation_fn: topk` counts for more
than `architecture: standard`. A BatchTopK SAE is run with its threshold."""
NEEDS = {"topk": "k", "jumprelu": "threshold"}


def architecture_of(
    file: Path, settings: dict[str, Any], has_threshold: bool, d_sae: int
) -> dict[str, Any]:
    """`architecture`, and `k` for topk: what the settings say, or else what is there.

    Raises InputError where it is another architecture, needs something that is not there, or may
    be either TopK or JumpReLU.
    """
    k = next((settings[name] for name in ("k", "topk", "top_k") if name in settings), None)
    there = {"topk": k is not None, "jumprelu": has_threshold}
    kind = _stated(settings) or _found(file, there)
    if kind == "standard" and has_threshold:
        kind = "jumprelu"
    if kind == "gated":
        raise InputError(f"{file} is a gated SAE: only ReLU, TopK and JumpReLU are converted")
    if not there.get(kind, True):
        raise InputError(f"{file} says it is {kind}, but holds no {NEEDS[kind]}")
    return {"architecture": kind, **({"k": _checked(file, k, d_sae)} if kind == "topk" else {})}


def _stated(settings: dict[str, Any]) -> str | None:
    said = [str(settings.get(key, "")).lower() for key in STATED_BY]
    plain = [text.replace("_", "").replace("-", "") for text in said]
    return next((kind for part, kind in MEANT if any(part in text for text in plain)), None)


def _found(file: Path, there: dict[str, bool]) -> str:
    if all(there.values()):
        raise InputError(
            f"{file} holds both k and threshold: say which counts with "
            '{"architecture": "topk"} or {"architecture": "jumprelu"} in a config.json beside it'
        )
    return next((kind for kind, held in there.items() if held), "standard")


def _checked(file: Path, k: Any, d_sae: int) -> int:
    whole = isinstance(k, int | float) and not isinstance(k, bool) and k == int(k)
    if not whole or not 1 <= k <= d_sae:
        raise InputError(f"{file}: k must be a whole number from 1 to {d_sae}, not {k!r}")
    return int(k)


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
