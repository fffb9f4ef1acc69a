"""A whole sweep: cells, the packing plan, and shards through the record store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import pandas as pd
import torch
from torch import Tensor

from saelens_steer.files import digest
from saelens_steer.progress import Note, unnoted
from saelens_steer.steering import CANDIDATE, Directions
from saelens_steer.sweeps.logits import LogitSweep, measure, rows_of, unsteered_rows
from saelens_steer.sweeps.plan import Batch, BatchSplitter, batches, shards
from saelens_steer.sweeps.store import KEPT_NOWHERE, Store
from saelens_steer.sweeps.texts import CompletionSweep, completion_rows, judged
from saelens_steer.tensors import Logits

WRITTEN = 8
"""Rows that are written on take one token at a time, so this many times as many run together."""
UNSTEERED = -1
"""The cell of the α = 0 rows of a logit sweep, which all directions share."""


def run_logits(
    sweep: LogitSweep, store: Store = KEPT_NOWHERE, note: Note = unnoted
) -> pd.DataFrame:
    """Measure every (cell, prompt): columns cell, prompt, metrics and receipt; α = 0 is cell −1."""
    parts = (rows for _, rows in logit_shards(sweep, store, note=note))
    return pd.concat([unsteered(sweep, store, note=note), *parts], ignore_index=True)


def unsteered(
    sweep: LogitSweep, store: Store, logits: Store = KEPT_NOWHERE, note: Note = unnoted
) -> pd.DataFrame:
    """The α = 0 rows, through the store."""

    def compute() -> pd.DataFrame:
        return unsteered_rows(sweep, _baseline(sweep, logits)).assign(cell=UNSTEERED)

    rows = store.frame("unsteered", compute)
    note(len(rows))
    return rows


def logit_shards(
    sweep: LogitSweep,
    store: Store,
    logits: Store = KEPT_NOWHERE,
    splitter: BatchSplitter | None = None,
    note: Note = unnoted,
) -> Iterator[tuple[range, pd.DataFrame]]:
    """Each shard's cells and rows, in order; `logits` keeps last-token logits and receipts, so
    that other metrics need no forward pass. Calls `note` with the rows of each."""
    work = _Work(sweep, logits, splitter or BatchSplitter())
    for shard in shards(sweep.cells, sweep.directions.groups, len(sweep.prompts)):
        name = digest([sweep.identity(cell) for cell in shard])
        rows = store.frame(name, partial(work.rows, shard, name))
        note(len(rows))
        yield shard, rows.assign(cell=rows["cell"] + shard.start)


@dataclass(frozen=True)
class _Work:
    """What computing a shard takes."""

    sweep: LogitSweep
    logits: Store
    splitter: BatchSplitter

    @cached_property
    def baseline(self) -> Logits:
        return _baseline(self.sweep, self.logits)

    @cached_property
    def whole(self) -> bool:
        """Whether rows take whole passes; kept with the logits, for finding out takes a pass."""

        def found() -> dict[str, Tensor]:
            return {"whole": torch.tensor(self.sweep.why_whole is not None)}

        return bool(self.logits.tensors("path", found)["whole"])

    def rows(self, shard: range, name: str) -> pd.DataFrame:
        """Rows of a shard, its cells counted from 0: the same in every sweep that has them."""
        sweep, frames = self.sweep, []
        for number, batch in enumerate(sweep.plan(shard, self.whole)):
            run = partial(self.measured, batch, shard.start)
            found = self.logits.tensors(f"{name}-{number:04d}", run)
            frames.append(rows_of(sweep, found, self.baseline))
        return pd.concat(frames, ignore_index=True)

    def measured(self, batch: Batch, first: int) -> dict[str, Tensor]:
        """A batch, in parts where it does not fit into memory; cells counted from `first`."""
        parts = [
            found for _, found in self.splitter.run(batch, partial(measure, self.sweep, self.whole))
        ]
        found = parts[0] if len(parts) == 1 else joined(parts)
        return {**found, "cell": found["cell"] - first}


def joined(parts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The parts of a batch, one after the other."""
    return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}


def _baseline(sweep: LogitSweep, logits: Store) -> Logits:
    """Unsteered last-token logits [n_prompts, d_vocab], kept with the others."""
    found = logits.tensors("unsteered", lambda: {"logits": sweep.unsteered_pass.baseline})["logits"]
    return found.to(sweep.unsteered_pass.device)


def run_completions(
    sweep: CompletionSweep,
    store: Store = KEPT_NOWHERE,
    splitter: BatchSplitter | None = None,
    note: Note = unnoted,
) -> pd.DataFrame:
    """Write every (cell, prompt) out; a shard for each batch, since texts take long."""
    splitter, frames = splitter or BatchSplitter(), []
    sizes = [n + sweep.spec.max_new_tokens for n in sweep.unsteered_pass.lengths]
    budget = WRITTEN * sweep.unsteered_pass.batch_tokens
    plan = batches(range(len(sweep.cells)), sweep.prompts, budget, sizes, padded=True)
    for batch in plan:
        name = digest([sweep.identity(cell) for cell in batch.cells], batch.prompts)
        rows = store.frame(name, partial(_written, sweep, batch, splitter))
        note(len(rows))
        cells = [batch.cells[place] for place in rows["cell"]]
        frames.append(rows.assign(cell=cells))
    return judged(sweep, pd.concat(frames, ignore_index=True))


def _written(sweep: CompletionSweep, batch: Batch, splitter: BatchSplitter) -> pd.DataFrame:
    """A batch written out, its cells counted from 0."""
    parts = [rows for _, rows in splitter.run(batch, partial(completion_rows, sweep))]
    rows = pd.concat(parts, ignore_index=True)
    return rows.assign(cell=[batch.cells.index(cell) for cell in rows["cell"]])


def generating(directions: Directions, chosen: Sequence[int], n_controls: int) -> list[int]:
    """Indices of the directions that get completions: the chosen ones, and the first controls that
    they are compared with, of the family that claims are held against (of the first size or
    candidate where none is chosen)."""
    families, sets = directions.families, dict[tuple[float, str | None], list[int]]()
    controls = [i for i, family in enumerate(families) if family != CANDIDATE]
    for i in (i for i in controls if families[i] == families[controls[0]]):
        sets.setdefault((directions.sizes[i], directions.matched_to[i]), []).append(i)
    pairs = {(directions.sizes[i], whose) for i in chosen for whose in (None, directions.names[i])}
    kept = [key for key in sets if key in pairs] if chosen else list(sets)[:1]
    return [*chosen, *(i for key in kept for i in sets[key][:n_controls])]
