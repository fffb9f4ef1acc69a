"""Why a sweep's numbers may mislead: warnings, each a finished sentence with its numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from saelens_steer.evidence.claims import least_controls
from saelens_steer.evidence.grid import DOSE, RowGrid
from saelens_steer.evidence.headline import KL
from saelens_steer.evidence.statistics import prompt_mean
from saelens_steer.metrics import distinct_words
from saelens_steer.steering import CANDIDATE

SATURATED = 0.95
"""A rate at 0 or 1 on so many unsteered prompts has next to no room on that side."""
WHISPER = 0.02
"""Texts seldom change under a tenth of the residual. A fifth of that is no more than some steps of
bfloat16 (0.4 % of a coordinate), so that an effect may be missing for want of a push."""
SHOUT = 1.0
"""A push as large as the residual itself: what comes after reads the push more than the model."""
LOOPING = 0.5
"""Steered texts with less than half of the unsteered share of distinct words go in circles."""
FEW_PROMPTS = 10
"""A 95 % percentile bootstrap of normal data holds in 92 % of simulations with 24 prompts, in 89 %
with 10, in 84 % with 5 and in 73 % with 3."""
NAMED = 5
"""So many directions are named in a sentence."""

Cube = Float[np.ndarray, "directions alphas prompts"]


def guards(
    rows: pd.DataFrame,
    claims: pd.DataFrame,
    completions: pd.DataFrame,
    metrics: Sequence[str],
) -> list[str]:
    """What a reader of these results has to know first; none where nothing is amiss.

    Of the candidates: too few prompts or controls; metrics that are not measured, or saturated
    before any push; pushes too weak, too strong, or that change nothing (where the rows have
    receipt_rel_norm); texts that collapse. Raises InputError for a table that does not fit.
    """
    own = rows.loc[rows["family"] == CANDIDATE]
    if own.empty:
        return []
    grid = RowGrid.of(own)
    coverage: dict[str, int | None] = {}
    bounds: dict[str, tuple[int, int, int] | None] = {}
    for metric in metrics:
        cube = grid.cube(own, metric)
        coverage[metric] = _fewest(grid, cube)
        bounds[metric] = None if metric == KL else _bound(cube, grid.zero)
    kinds = (
        _few_prompts(grid.n_prompts),
        _few_controls(claims),
        _uncovered(coverage, grid.n_prompts),
        _saturated(bounds),
        _dose(grid, own),
        _loops(completions),
    )
    return list(chain.from_iterable(kinds))


def _few_prompts(n: int) -> Iterator[str]:
    if n == 1:
        yield "One prompt was steered: it gives no interval, and says nothing about other prompts."
    elif n < FEW_PROMPTS:
        yield (
            f"Only {n} prompts were steered: intervals over fewer than {FEW_PROMPTS} are not to be "
            "trusted."
        )


def _few_controls(claims: pd.DataFrame) -> Iterator[str]:
    """A sentence for the metrics that lack controls alike."""
    lacking: dict[tuple[int, int], list[str]] = {}
    tables: Any = claims.groupby("metric", sort=False) if len(claims) else ()
    for metric, table in tables:
        has = table.loc[table["T"].notna(), "n_controls"]
        if len(has) and has.min() < least_controls(len(has)):
            lacking.setdefault((len(has), int(has.min())), []).append(str(metric))
    for (tests, fewest), names in lacking.items():
        yield (
            f"Not testable (claims about {_count(tests, 'direction')} take at least "
            f"{least_controls(tests)} controls and have {fewest or 'none'}): {', '.join(names)}."
        )


def _fewest(grid: RowGrid, cube: Cube) -> int | None:
    """The fewest prompts that any cell of a direction with this metric has it on; None where no
    steered cell has it."""
    counts = (~np.isnan(cube)).sum(-1)
    if not np.delete(counts, grid.zero, axis=1).any():
        return None
    there = (grid.prompt_counts() > 0) & counts.any(1, keepdims=True)
    return int(counts[there].min())


def _uncovered(coverage: Mapping[str, int | None], n_prompts: int) -> Iterator[str]:
    """Metrics without a value on any steered prompt, and those that some cells have on fewer."""
    if nowhere := [metric for metric, fewest in coverage.items() if fewest is None]:
        yield f"Without a value on any steered prompt: {', '.join(nowhere)}."
    partly = {metric: n for metric, n in coverage.items() if n is not None and n < n_prompts}
    if partly:
        each = ", ".join(f"{metric} (as few as {n} of {n_prompts})" for metric, n in partly.items())
        yield f"Measured on part of the prompts, so that means are over different ones: {each}."


def _bound(cube: Cube, zero: int) -> tuple[int, int, int] | None:
    """0 or 1, prompts at it, prompts measured: of a rate that sits there before any push.

    One that fewer than half of the prompts have a value of is said to be uncovered instead.
    """
    unsteered = np.fmax.reduce(cube[:, zero], axis=0)
    unsteered = unsteered[~np.isnan(unsteered)]
    if 2 * len(unsteered) < cube.shape[-1] or np.nanmin(cube) < 0 or np.nanmax(cube) > 1:
        return None
    at = {bound: int((unsteered == bound).sum()) for bound in (0, 1)}
    bound = max(at, key=lambda bound: at[bound])
    full = at[bound] >= SATURATED * len(unsteered)
    return (bound, at[bound], len(unsteered)) if full else None


def _saturated(bounds: Mapping[str, tuple[int, int, int] | None]) -> Iterator[str]:
    each = [f"{metric} at {b[0]} ({b[1]} of {b[2]} prompts)" for metric, b in bounds.items() if b]
    if each:
        yield f"Saturated before any push, so that it can go one way only: {', '.join(each)}."


def _dose(grid: RowGrid, own: pd.DataFrame) -> Iterator[str]:
    """How large the pushes are beside the residual itself, where the rows have receipts."""
    if DOSE not in own:
        return
    dose = np.delete(prompt_mean(grid.cube(own, DOSE)), grid.zero, axis=1)
    sizes = np.abs(np.delete(grid.alphas, grid.zero))
    known = ~np.isnan(dose).all(1)
    still = known & ~(dose > 0).any(1)
    if still.any():
        yield _unmoved(list(grid.directions["direction"][still]), int(known.sum()))
    smallest, largest = (dose[~still][:, sizes == size] for size in (sizes.min(), sizes.max()))
    weak, strong = (_mean(part) for part in (largest, smallest))
    if weak < WHISPER:
        yield (
            f"At |α| = {sizes.max():g}, the largest, a push is {100 * weak:.2g} % of the residual: "
            "a whisper, so that small effects, or none, say nothing."
        )
    if strong > SHOUT:
        yield (
            f"At |α| = {sizes.min():g}, the smallest, a push is {strong:.2g} times the residual "
            "itself: too strong to say what a feature does."
        )


def _unmoved(names: Sequence[str], total: int) -> str:
    shown = [*names[:NAMED], *(["…"] if len(names) > NAMED else [])]
    return (
        f"{len(names)} of {_count(total, 'direction')} never changed a residual "
        f"({', '.join(shown)}): nothing was tested there."
    )


def _loops(completions: pd.DataFrame) -> Iterator[str]:
    """Where the candidates' texts go in circles; a text without a word counts as 0."""
    if completions.empty:
        return
    own = completions.loc[completions["family"] == CANDIDATE, ["direction", "alpha", "completion"]]
    own = own.assign(share=own["completion"].map(distinct_words).fillna(0.0))
    unsteered = float(own.loc[own["alpha"] == 0, "share"].mean())
    groups: Any = own.loc[own["alpha"] != 0].groupby(["direction", "alpha"], observed=True)
    cells = groups["share"].agg(["mean", "size"]).reset_index()
    looping = cells.loc[cells["mean"] < LOOPING * unsteered]
    if len(looping):
        several = f"{looping['direction'].nunique()} of {own['direction'].nunique()} directions"
        yield _circling(looping.loc[looping["alpha"].abs().idxmin()], unsteered, several)


def _circling(first: Any, unsteered: float, several: str) -> str:
    where = f"at α = {first['alpha']:g} ({first['direction']})".replace("= -", "= −")
    return (
        f"Texts go in circles, first {where}, where {100 * first['mean']:.0f} % of the words of "
        f"{_count(int(first['size']), 'text')} are no repeats, against {100 * unsteered:.0f} % "
        f"unsteered; {several} do so."
    )


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _count(n: int, what: str) -> str:
    return f"{n} {what}" + ("" if n == 1 else "s")
