"""Find strengths by their KL, for α in nats or controls matched by KL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch

from saelens_steer.errors import InputError
from saelens_steer.files import digest
from saelens_steer.metrics import KL
from saelens_steer.progress import Note, unnoted
from saelens_steer.sweeps.logits import LogitSweep, measured_batches, rows_of
from saelens_steer.sweeps.plan import BatchSplitter
from saelens_steer.sweeps.store import NO_STORE, Store

TOLERANCE = 0.02
"""Largest relative error of a mean KL."""
ROUNDING = 1e-6
"""Error in nats allowed for any target: float32 logits are no more precise."""
FIRST_STEP = 0.05
"""Norm of the first push, in multiples of mean ‖x‖."""
LONGEST = 100.0
"""Norm beyond which the search fails, in multiples of mean ‖x‖."""
ROUNDS = 60


def matched_steps(
    sweep: LogitSweep,
    in_nats: bool,
    mean_norm: float,
    store: Store = NO_STORE,
    splitter: BatchSplitter | None = None,
    note: Note = unnoted,
) -> list[float]:
    """The multiple of its direction that each cell adds.

    Candidates and shared controls are pushed until the mean KL is |α| if α is in nats (`in_nats`),
    otherwise by α. Per-candidate controls match the other quantity of their candidate: its step if
    α is in nats, otherwise its mean KL at the same α. `mean_norm` as in `kl_steps`, which raises
    InputError for a KL that cannot be reached.
    """
    names, candidate = sweep.directions.names, sweep.directions.matched_to
    first = [i for i, (d, _) in enumerate(sweep.cells) if candidate[d] is None]
    rest = [i for i, (d, _) in enumerate(sweep.cells) if candidate[d] is not None]
    leading, matched = _only(sweep, first), _only(sweep, rest)
    kept = mean_norm, store, splitter, note
    steps = calibrated_steps(leading, *kept) if in_nats else [alpha for _, alpha in leading.cells]
    if not rest:
        return steps
    values = steps if in_nats else _mean_kls(leading, store, splitter, note)
    by_name = {(names[d], alpha): x for (d, alpha), x in zip(leading.cells, values, strict=True)}
    targets = [by_name[str(candidate[d]), alpha] for d, alpha in matched.cells]
    found = targets if in_nats else calibrated_steps(matched, *kept, targets=targets)
    by_cell = dict(zip([*first, *rest], [*steps, *found], strict=True))
    return [by_cell[cell] for cell in range(len(sweep.cells))]


def calibrated_steps(
    sweep: LogitSweep,
    mean_norm: float,
    store: Store = NO_STORE,
    splitter: BatchSplitter | None = None,
    note: Note = unnoted,
    targets: Sequence[float] | None = None,
) -> list[float]:
    """`kl_steps`, one stored shard at a time."""
    splitter, found = splitter or BatchSplitter(), list[float]()
    for shard in sweep.shards:
        part = _only(sweep, shard)
        wanted = _targets(part) if targets is None else list(targets[shard.start : shard.stop])
        name = digest(mean_norm, wanted, part.identities(range(len(shard))))

        def compute(part: LogitSweep = part, wanted: list[float] = wanted) -> pd.DataFrame:
            return pd.DataFrame({"step": kl_steps(part, mean_norm, splitter, note, wanted)})

        found += store.frame(name, compute)["step"].tolist()
    return found


def _mean_kls(
    sweep: LogitSweep, store: Store, splitter: BatchSplitter | None, note: Note
) -> list[float]:
    """Each cell's mean KL over the prompts, in nats, one stored shard at a time."""
    splitter, found = splitter or BatchSplitter(), list[float]()
    for shard in sweep.shards:
        part, cells = _only(sweep, shard), range(len(shard))

        def compute(part: LogitSweep = part, cells: range = cells) -> pd.DataFrame:
            steps = [part.step(cell) for cell in cells]
            return pd.DataFrame({"kl": _mean_kl(part, cells, steps, splitter, note)})

        name = digest("mean kl", part.identities(cells))
        found += store.frame(name, compute)["kl"].tolist()
    return found


def _only(sweep: LogitSweep, cells: Sequence[int]) -> LogitSweep:
    return replace(sweep, cells=[sweep.cells[cell] for cell in cells])


def _targets(sweep: LogitSweep) -> list[float]:
    """The target KL of each cell if α is in nats: |α|."""
    return [abs(alpha) for _, alpha in sweep.cells]


def kl_steps(
    sweep: LogitSweep,
    mean_norm: float,
    splitter: BatchSplitter | None = None,
    note: Note = unnoted,
    targets: Sequence[float] | None = None,
) -> list[float]:
    """The multiple of its direction at which each cell reaches its target mean KL, signed like α.

    `targets`: mean KL over the sweep's prompts, by default |α|. `mean_norm` (mean ‖x‖ at the hook)
    sets the scale of the search. Raises InputError if a push of 100 times that norm misses the
    target.
    """
    sizes = [float(sweep.directions.vectors[d].norm()) for d, _ in sweep.cells]
    searches = [_Search(t) for t in (_targets(sweep) if targets is None else targets)]
    found: dict[int, float] = {}
    splitter = splitter or BatchSplitter()
    for _ in range(ROUNDS):
        left = [i for i in range(len(searches)) if i not in found]
        if not left:
            break
        steps = [searches[i].next(FIRST_STEP * mean_norm / sizes[i]) for i in left]
        pushes = [step * sizes[i] for i, step in zip(left, steps, strict=True)]
        if max(pushes) > LONGEST * mean_norm:
            far = pushes.index(max(pushes))
            why = f"even a push of norm {pushes[far]:.3g} is too weak; choose a smaller KL"
            raise InputError(f"{_named(sweep, left[far], searches)}: {why}")
        signs = [np.sign(sweep.cells[i][1]) for i in left]
        signed = [float(s * sign) for s, sign in zip(steps, signs, strict=True)]
        kls = _mean_kl(sweep, left, signed, splitter, note)
        for i, step, kl, sign in zip(left, steps, kls, signs, strict=True):
            if searches[i].note(step, kl):
                found[i] = float(step * sign)
    if len(found) < len(searches):
        stuck = next(i for i in range(len(searches)) if i not in found)
        raise InputError(f"{_named(sweep, stuck, searches)} at any strength; choose another KL")
    return [found[i] for i in range(len(searches))]


@dataclass
class _Search:
    """A cell's bracket: the KL is too small at `low`, too large at `high`."""

    target: float
    low: float = 0.0
    kl_low: float = 0.0
    high: float = np.inf
    kl_high: float = np.inf

    def next(self, first: float) -> float:
        """Double until bracketed; then interpolate linearly in (log step, log KL)."""
        if not np.isfinite(self.high):
            return 2 * self.low if self.low else first
        if not (self.low and self.kl_low > 0):
            return self.high / 2
        slope = np.log(self.kl_high / self.kl_low) / np.log(self.high / self.low)
        guess = self.low * (self.target / self.kl_low) ** (1 / slope) if slope > 0 else np.nan
        width = self.high - self.low
        inside = self.low + 0.05 * width < guess < self.high - 0.05 * width
        return float(guess) if inside else (self.low + self.high) / 2

    def note(self, step: float, kl: float) -> bool:
        """Narrow the bracket; True if this step is close enough."""
        if kl < self.target:
            self.low, self.kl_low = step, kl
        else:
            self.high, self.kl_high = step, kl
        return abs(kl - self.target) <= max(TOLERANCE * self.target, ROUNDING)


def _mean_kl(
    sweep: LogitSweep,
    cells: Sequence[int],
    steps: Sequence[float],
    splitter: BatchSplitter,
    note: Note,
) -> list[float]:
    """Mean KL over the prompts of each cell at these steps."""
    trial = replace(_only(sweep, cells), steps=steps, metrics=[KL], sae=None)
    sums = torch.zeros(len(cells), dtype=torch.float64)
    for found in measured_batches(trial, splitter):
        rows = rows_of(trial, found, sweep.unsteered_pass.baseline)
        cell, kls = (torch.tensor(rows[name].to_numpy()) for name in ("cell", "kl"))
        sums.index_add_(0, cell, kls)
        note(len(rows))
    return (sums / len(sweep.prompts)).tolist()


def _named(sweep: LogitSweep, cell: int, searches: Sequence[_Search]) -> str:
    name = sweep.directions.names[sweep.cells[cell][0]]
    return f"{name} does not reach a mean KL of {searches[cell].target:.4g}"
