"""A whole sweep: cells, the packing plan, and shards through the record store."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pandas as pd

from saelens_steer.progress import Note, unnoted
from saelens_steer.sweeps.completions import CompletionSweep, completion_rows
from saelens_steer.sweeps.directions import CANDIDATE, Directions
from saelens_steer.sweeps.engine import LogitSweep, steered_rows, unsteered_rows
from saelens_steer.sweeps.plan import pack, shards
from saelens_steer.sweeps.store import Store, collect
from saelens_steer.sweeps.tables import UNSTEERED


def run_logits(
    sweep: LogitSweep, batch_tokens: int, store: Store, note: Note = unnoted
) -> pd.DataFrame:
    """Measure every (cell, prompt): columns cell, prompt, metrics and receipt; α = 0 is cell −1."""
    plan = pack([len(p) for p in sweep.prompts], len(sweep.cells), batch_tokens)
    first = partial(_unsteered, sweep)
    return collect(store, [first, *(partial(steered_rows, sweep, g) for g in shards(plan))], note)


def _unsteered(sweep: LogitSweep) -> pd.DataFrame:
    return unsteered_rows(sweep).assign(cell=UNSTEERED)


def run_completions(
    sweep: CompletionSweep, batch_tokens: int, store: Store, note: Note = unnoted
) -> pd.DataFrame:
    """Write every (cell, prompt) out; a shard for each batch, since texts take long."""
    lengths = [len(p) + sweep.spec.max_new_tokens for p in sweep.prompts]
    plan = pack(lengths, len(sweep.cells), batch_tokens)
    return collect(store, [partial(completion_rows, sweep, [batch]) for batch in plan], note)


def generating(directions: Directions, chosen: Sequence[int], n_controls: int) -> list[int]:
    """Indices of the directions that get completions: the chosen ones, and the first controls of
    each size that they have (of the first size where none is chosen)."""
    controls = [i for i, family in enumerate(directions.families) if family != CANDIDATE]
    sizes = {directions.sizes[i] for i in chosen} or {directions.sizes[i] for i in controls[:1]}
    of_size = ([i for i in controls if directions.sizes[i] == size] for size in sorted(sizes))
    return [*chosen, *(i for same in of_size for i in same[:n_controls])]
