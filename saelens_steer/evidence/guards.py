"""Warnings about a sweep whose numbers may mislead, with the numbers behind each warning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from saelens_steer.evidence.claims import lacking_controls
from saelens_steer.evidence.grid import DOSE, KL, RowGrid
from saelens_steer.evidence.matching import matched_by
from saelens_steer.evidence.statistics import prompt_mean
from saelens_steer.metrics import distinct_words
from saelens_steer.numbers import count
from saelens_steer.steering import CANDIDATE, direction_label

SATURATED = 0.95
"""A rate at 0 or 1 on this share of unsteered prompts can hardly move in that direction."""
TOO_WEAK = 0.02
"""Texts seldom change below a tenth of the residual. A fifth of that is a few rounding steps of
bfloat16 (0.4 % of a coordinate), so a missing effect may only mean that steering was too weak."""
TOO_STRONG = 1.0
"""A change as large as the residual: later layers then read it more than the model's own state."""
LOOPING = 0.5
"""Steered texts loop if their share of distinct words is below this multiple of the unsteered."""
FEW_PROMPTS = 10
"""A 95 % percentile bootstrap of normal data holds in 92 % of simulations with 24 prompts, in 89 %
with 10, in 84 % with 5 and in 73 % with 3."""
NAMED = 5
"""Directions listed in one sentence."""

Cube = Float[np.ndarray, "directions alphas prompts"]


def guards(
    rows: pd.DataFrame,
    claims: pd.DataFrame,
    completions: pd.DataFrame,
    metrics: Sequence[str],
) -> list[str]:
    """The warnings to read before these results; empty if there are none.

    They concern the candidates: a metric that controls are matched on; too few prompts or
    controls; metrics that are undefined, or already at their limit without steering; steering that
    is too weak, too strong or without any change (if the rows have receipt_rel_norm); texts that
    loop. Raises InputError for inconsistent tables.
    """
    own = rows.loc[rows["family"] == CANDIDATE]
    if own.empty:
        return []
    grid = RowGrid.of(own)
    cubes = {metric: grid.cube(own, metric) for metric in metrics}
    return [
        *_matched_metric(rows, metrics),
        *_few_prompts(grid.n_prompts),
        *_few_controls(claims),
        *_uncovered(grid, cubes),
        *_saturated(grid, cubes),
        *_dose(grid, own),
        *_loops(completions),
    ]


def _few_prompts(n: int) -> Iterator[str]:
    if n == 1:
        yield (
            "Only one prompt was steered: there are no intervals, and the effect on other prompts "
            "is unknown."
        )
    elif n < FEW_PROMPTS:
        yield (
            f"Only {n} prompts were steered: intervals over fewer than {FEW_PROMPTS} are "
            "unreliable."
        )


def _few_controls(claims: pd.DataFrame) -> Iterator[str]:
    """One sentence for all metrics with the same numbers of claims and controls."""
    lacking: dict[str, list[str]] = {}
    tables: Any = claims.groupby("metric", sort=False) if len(claims) else ()
    for metric, table in tables:
        has = table.loc[table["T"].notna(), "n_controls"]
        if len(has) and (why := lacking_controls(len(has), int(has.min()))):
            lacking.setdefault(why, []).append(str(metric))
    for why, names in lacking.items():
        yield f"Not testable ({why}): {', '.join(names)}."


def _uncovered(grid: RowGrid, cubes: Mapping[str, Cube]) -> Iterator[str]:
    """Metrics undefined on all steered prompts, and metrics undefined on some prompts of a cell."""
    nowhere, partly = [], []
    for metric, cube in cubes.items():
        counts = (~np.isnan(cube)).sum(-1)
        if not np.delete(counts, grid.zero, axis=1).any():
            nowhere.append(metric)
            continue
        fewest = int(counts[(grid.prompt_counts() > 0) & counts.any(1, keepdims=True)].min())
        if fewest < grid.n_prompts:
            partly.append(f"{metric} (as few as {fewest} of {grid.n_prompts})")
    if nowhere:
        overflow = " The model's activations overflow: lower α." if "kl" in nowhere else ""
        yield f"Undefined on every steered prompt: {', '.join(nowhere)}.{overflow}"
    if partly:
        each = ", ".join(partly)
        yield f"Undefined for some prompts, so means cover different prompts: {each}."


def _saturated(grid: RowGrid, cubes: Mapping[str, Cube]) -> Iterator[str]:
    """Rates that are already at 0 or 1 without steering.

    Rates with values on fewer than half of the prompts are left to `_uncovered`.
    """
    found = []
    for metric, cube in cubes.items():
        unsteered = np.fmax.reduce(cube[:, grid.zero], axis=0)
        unsteered = unsteered[~np.isnan(unsteered)]
        n = len(unsteered)
        rare = 2 * n < grid.n_prompts
        if metric == KL or rare or np.nanmin(cube) < 0 or np.nanmax(cube) > 1:
            continue
        at_0, at_1 = (int((unsteered == bound).sum()) for bound in (0, 1))
        bound, at = (1, at_1) if at_1 > at_0 else (0, at_0)
        if at >= SATURATED * n:
            found.append(f"{metric} at {bound} ({at} of {n} prompts)")
    if found:
        one, each = len(found) == 1, ", ".join(found)
        these = "This metric is at its limit" if one else "These metrics are at their limits"
        yield f"{these} without steering, and can only move one way: {each}."


def _dose(grid: RowGrid, own: pd.DataFrame) -> Iterator[str]:
    """How large the change is relative to the residual's norm, if the rows have receipts."""
    if DOSE not in own:
        return
    dose = np.delete(prompt_mean(grid.cube(own, DOSE)), grid.zero, axis=1)
    sizes = np.abs(np.delete(grid.alphas, grid.zero))
    known = ~np.isnan(dose).all(1)
    still = known & ~(dose > 0).any(1)
    if still.any():
        names = [direction_label(str(name)) for name in grid.directions["direction"][still]]
        shown = ", ".join([*names[:NAMED], *(["…"] if len(names) > NAMED else [])])
        yield (
            f"{len(names)} of {count(int(known.sum()), 'direction')} never changed an activation "
            f"({shown}): steering along {'it' if len(names) == 1 else 'them'} tested nothing."
        )
    smallest, largest = (dose[~still][:, sizes == size] for size in (sizes.min(), sizes.max()))
    weak, strong = (_mean(part) for part in (largest, smallest))
    if weak < TOO_WEAK:
        yield (
            f"At |α| = {sizes.max():g}, the largest, steering changes activations by "
            f"{100 * weak:.2g} % of their norm: too weak for a null result to be informative."
        )
    if strong > TOO_STRONG:
        yield (
            f"At |α| = {sizes.min():g}, the smallest, the norm of a push is {strong:.2g} times "
            "the activation's: too strong to show what a feature does."
        )


def _matched_metric(rows: pd.DataFrame, metrics: Sequence[str]) -> Iterator[str]:
    if "kl" in metrics and matched_by(rows) == "KL":
        yield (
            "Controls are matched on KL, so the claims about kl test nothing: read another metric."
        )


def _loops(completions: pd.DataFrame) -> Iterator[str]:
    """The smallest |α| at which a candidate's texts loop; a text without words counts as 0.

    Texts that end because the residual overflowed are not the model's, and left out.
    """
    if completions.empty:
        return
    if "truncated" in completions:
        completions = completions.loc[completions["truncated"].notna()]
    own = completions.loc[completions["family"] == CANDIDATE, ["direction", "alpha", "completion"]]
    own = own.assign(share=own["completion"].map(distinct_words).fillna(0.0))
    unsteered = float(own.loc[own["alpha"] == 0, "share"].mean())
    groups: Any = own.loc[own["alpha"] != 0].groupby(["direction", "alpha"], observed=True)
    cells = groups["share"].agg(["mean", "size"]).reset_index()
    looping = cells.loc[cells["mean"] < LOOPING * unsteered]
    if looping.empty:
        return
    first: Any = looping.loc[looping["alpha"].abs().idxmin()]
    label = direction_label(str(first["direction"]))
    where = f"at α = {first['alpha']:g} ({label})".replace("= -", "= −")
    yield (
        f"Texts repeat themselves, first {where}: {100 * first['mean']:.0f} % of the words in "
        f"{count(int(first['size']), 'text')} are distinct, against {100 * unsteered:.0f} % "
        f"unsteered. This happens for {looping['direction'].nunique()} of "
        f"{count(own['direction'].nunique(), 'direction')}."
    )


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
