"""How far each cell goes, so that controls do as much as what they are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from saelens_steer.progress import Note, unnoted
from saelens_steer.sweeps.calibrate import calibrated_steps, mean_kls
from saelens_steer.sweeps.engine import LogitSweep
from saelens_steer.sweeps.room import Room
from saelens_steer.sweeps.store import KEPT_NOWHERE, Store


def matched_steps(
    sweep: LogitSweep,
    in_nats: bool,
    mean_norm: float,
    store: Store = KEPT_NOWHERE,
    room: Room | None = None,
    note: Note = unnoted,
) -> list[float]:
    """How much of its direction each cell adds.

    What is under test, and controls that all share: as far as gives a mean KL of |α| where α counts
    nats (`in_nats`), else α. A candidate's own controls are matched in the other way: where α
    counts nats they go as far as it does, else to the mean KL that it has at the same α.
    `mean_norm` as in `kl_steps`, which raises InputError for what cannot be reached.
    """
    names, whose = sweep.directions.names, sweep.directions.matched_to
    first = [i for i, (d, _) in enumerate(sweep.cells) if whose[d] is None]
    rest = [i for i, (d, _) in enumerate(sweep.cells) if whose[d] is not None]
    leading, own = _only(sweep, first), _only(sweep, rest)
    kept = mean_norm, store, room, note
    steps = calibrated_steps(leading, *kept) if in_nats else [alpha for _, alpha in leading.cells]
    if not rest:
        return steps
    known = steps if in_nats else mean_kls(leading, store, room, note)
    placed = {(names[d], alpha): x for (d, alpha), x in zip(leading.cells, known, strict=True)}
    wanted = [placed[str(whose[d]), alpha] for d, alpha in own.cells]
    found = wanted if in_nats else calibrated_steps(own, *kept, targets=wanted)
    by_cell = dict(zip([*first, *rest], [*steps, *found], strict=True))
    return [by_cell[cell] for cell in range(len(sweep.cells))]


def _only(sweep: LogitSweep, cells: Sequence[int]) -> LogitSweep:
    """The sweep of some of the cells."""
    return replace(sweep, cells=[sweep.cells[cell] for cell in cells])
