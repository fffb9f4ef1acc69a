"""A whole sweep: cells, the packing plan, and shards through the record store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import pandas as pd
import torch
from torch import Tensor

from saelens_steer.files import digest
from saelens_steer.progress import Note, unnoted
from saelens_steer.sweeps.completions import CompletionSweep, completion_rows
from saelens_steer.sweeps.directions import CANDIDATE, Directions
from saelens_steer.sweeps.engine import (
    LogitSweep,
    measure,
    rows_of,
    unsteered_rows,
)
from saelens_steer.sweeps.plan import Batch, batches, shards
from saelens_steer.sweeps.room import Room
from saelens_steer.sweeps.store import KEPT_NOWHERE, Store

UNSTEERED = -1
"""The cell of the α = 0 rows of a logit sweep, which all directions share."""


def run_logits(
    sweep: LogitSweep, store: Store = KEPT_NOWHERE, note: Note = unnoted
) -> pd.DataFrame:
    """Measure every (cell, prompt): columns cell, prompt, metrics and receipt; α = 0 is cell −1."""
    parts = (rows for _, rows in logit_shards(sweep, store, note=note))
    return pd.concat([unsteered(sweep, store, note), *parts], ignore_index=True)


def unsteered(sweep: LogitSweep, store: Store, note: Note = unnoted) -> pd.DataFrame:
    """The α = 0 rows, through the store."""
    rows = store.frame("unsteered", lambda: unsteered_rows(sweep).assign(cell=UNSTEERED))
    note(len(rows))
    return rows


def logit_shards(
    sweep: LogitSweep,
    store: Store,
    logits: Store = KEPT_NOWHERE,
    room: Room | None = None,
    note: Note = unnoted,
) -> Iterator[tuple[range, pd.DataFrame]]:
    """Each shard's cells and rows, in order; `logits` keeps last-token logits and receipts, so
    that other metrics need no forward pass. Calls `note` with the rows of each."""
    room = room or Room()
    for shard in shards(sweep.cells, sweep.directions.families, len(sweep.prompts)):
        name = digest([sweep.identity(cell) for cell in shard])
        rows = store.frame(name, partial(_shard_rows, sweep, shard, name, logits, room))
        note(len(rows))
        yield shard, rows.assign(cell=rows["cell"] + shard.start)


def _shard_rows(
    sweep: LogitSweep, shard: range, name: str, logits: Store, room: Room
) -> pd.DataFrame:
    """Rows of a shard, its cells counted from 0: they are the same in every sweep that has them."""
    frames = []
    plan = batches(shard, sweep.prompts, sweep.ground.batch_tokens, sweep.tokens_per_row)
    for number, batch in enumerate(plan):
        run = partial(_measured, sweep, batch, shard.start, room)
        frames.append(rows_of(sweep, logits.tensors(f"{name}-{number:04d}", run)))
    return pd.concat(frames, ignore_index=True)


def _measured(sweep: LogitSweep, batch: Batch, first: int, room: Room) -> dict[str, Tensor]:
    """A batch measured, in parts where it does not fit into memory; cells counted from `first`."""
    parts = [found for _, found in room.run(batch, partial(measure, sweep))]
    found = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
    return {**found, "cell": found["cell"] - first}


def run_completions(
    sweep: CompletionSweep,
    store: Store = KEPT_NOWHERE,
    room: Room | None = None,
    note: Note = unnoted,
) -> pd.DataFrame:
    """Write every (cell, prompt) out; a shard for each batch, since texts take long."""
    room, frames = room or Room(), []
    sizes = [n + sweep.spec.max_new_tokens for n in sweep.ground.lengths]
    plan = batches(range(len(sweep.cells)), sweep.prompts, sweep.ground.batch_tokens, sizes)
    for batch in plan:
        name = digest([sweep.identity(cell) for cell in batch.cells], batch.prompts)
        rows = store.frame(name, partial(_written, sweep, batch, room))
        note(len(rows))
        cells = [batch.cells[place] for place in rows["cell"]]
        frames.append(rows.assign(cell=cells))
    return pd.concat(frames, ignore_index=True)


def _written(sweep: CompletionSweep, batch: Batch, room: Room) -> pd.DataFrame:
    """A batch written out, its cells counted from 0."""
    parts = [rows for _, rows in room.run(batch, partial(completion_rows, sweep))]
    rows = pd.concat(parts, ignore_index=True)
    return rows.assign(cell=[batch.cells.index(cell) for cell in rows["cell"]])


def generating(directions: Directions, chosen: Sequence[int], n_controls: int) -> list[int]:
    """Indices of the directions that get completions: the chosen ones, and the first controls of
    each size that they have (of the first size where none is chosen)."""
    controls = [i for i, family in enumerate(directions.families) if family != CANDIDATE]
    sizes = {directions.sizes[i] for i in chosen} or {directions.sizes[i] for i in controls[:1]}
    of_size = ([i for i in controls if directions.sizes[i] == size] for size in sorted(sizes))
    return [*chosen, *(i for same in of_size for i in same[:n_controls])]
