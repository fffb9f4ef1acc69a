"""A whole sweep: cells, shards, and the table of rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from saelens_steer.sweep.completions import CompletionSweep, completion_rows
from saelens_steer.sweep.directions import CANDIDATE, Directions
from saelens_steer.sweep.engine import LogitSweep, steered_rows, unsteered_rows
from saelens_steer.sweep.plan import Batch, pack, shards
from saelens_steer.sweep.store import Store, collect

Note = Callable[[int], None]
"""Called with the number of rows that have just been finished."""


@dataclass(frozen=True)
class Labels:
    """What the rows of a sweep have in common, and the names of its prompts."""

    prompt_ids: Sequence[str]
    domains: Sequence[str]
    edit: str
    hook_name: str
    positions: str
    alpha_unit: str


def grid(n_directions: int, alphas: Sequence[float]) -> list[tuple[int, float]]:
    """(direction, α) for every direction and every α but 0, which all directions share."""
    return [(d, a) for d in range(n_directions) for a in alphas if a != 0]


def run_logits(
    sweep: LogitSweep, batch_tokens: int, store: Store, note: Note = lambda n: None
) -> pd.DataFrame:
    """Measure every (cell, prompt): columns cell, prompt, metrics and receipt; α = 0 is cell −1."""
    plan = pack([len(p) for p in sweep.prompts], len(sweep.cells), batch_tokens)
    jobs = [partial(steered_rows, sweep, group) for group in shards(plan)]
    first: Callable[[], pd.DataFrame] = lambda: unsteered_rows(sweep).assign(cell=-1)  # noqa: E731
    return collect(store, [first, *jobs], note)


def run_completions(
    sweep: CompletionSweep, batch_tokens: int, store: Store, note: Note = lambda n: None
) -> pd.DataFrame:
    """Write every (cell, prompt) out; a shard for each batch, since texts take long."""
    lengths = [len(p) + sweep.spec.max_new_tokens for p in sweep.prompts]
    plan: list[Batch] = pack(lengths, len(sweep.cells), batch_tokens)
    return collect(store, [partial(completion_rows, sweep, [batch]) for batch in plan], note)


def logit_table(sweep: LogitSweep, rows: pd.DataFrame, labels: Labels) -> pd.DataFrame:
    """One row per direction × α × prompt in the order of the directions, α = 0 repeated for each."""
    n = len(sweep.directions)
    zero = rows[rows["cell"] == -1]
    repeated = pd.concat([zero.assign(direction=d, alpha=0.0) for d in range(n)])
    repeated["receipt_positions"] = 0
    repeated["receipt_rel_norm"] = 0.0
    moved = rows[rows["cell"] >= 0]
    cells = np.array(sweep.cells, dtype=object)
    moved = moved.assign(
        direction=cells[moved["cell"], 0].astype(int), alpha=cells[moved["cell"], 1].astype(float)
    )
    table = pd.concat([repeated, moved], ignore_index=True)
    table = table.sort_values(["direction", "alpha", "prompt"], kind="stable", ignore_index=True)
    return named(table, sweep.directions, labels)


def named(table: pd.DataFrame, directions: Directions, labels: Labels) -> pd.DataFrame:
    """Replace indices of directions and prompts by names, and put the labels in front."""
    which, prompt = table["direction"].to_numpy(), table["prompt"].to_numpy()
    features = pd.array([directions.features[d] for d in which], dtype="Int64")
    front: dict[str, Any] = {
        "direction": np.array(directions.names, dtype=object)[which],
        "family": np.array(directions.families, dtype=object)[which],
        "feature": features,
        "edit": labels.edit,
        "hook_name": labels.hook_name,
        "positions": labels.positions,
        "alpha": table["alpha"].to_numpy(),
        "alpha_unit": labels.alpha_unit,
        "matched_norm": directions.norms.numpy().astype(float)[which],
        "prompt_id": np.array(labels.prompt_ids, dtype=object)[prompt],
        "domain": np.array(labels.domains, dtype=object)[prompt],
    }
    rest = table.drop(columns=["cell", "direction", "alpha", "prompt"])
    receipts = [c for c in rest if str(c).startswith("receipt_")]
    ordered = rest[[c for c in rest if c not in receipts] + receipts].reset_index(drop=True)
    return pd.concat([pd.DataFrame(front), ordered], axis=1)


def completion_table(sweep: CompletionSweep, rows: pd.DataFrame, labels: Labels) -> pd.DataFrame:
    """One row per direction × α × prompt × sample; the unsteered text stands under each."""
    cells = np.array(sweep.cells, dtype=object)
    alpha = cells[rows["cell"], 1].astype(float)
    rows = rows.assign(direction=cells[rows["cell"], 0].astype(int), alpha=alpha)
    zero, moved = rows[rows["alpha"] == 0], rows[rows["alpha"] != 0]
    repeated = [zero.assign(direction=d) for d in range(len(sweep.directions))]
    table = pd.concat([*repeated, moved], ignore_index=True)
    order = ["direction", "alpha", "prompt", "sample"]
    table = table.sort_values(order, kind="stable", ignore_index=True)
    return named(table, sweep.directions, labels)


def with_text_metrics(
    rows: pd.DataFrame, completions: pd.DataFrame, columns: Sequence[str]
) -> pd.DataFrame:
    """Add each text metric to the rows that have completions: the mean over samples, else NaN."""
    keys = ["direction", "alpha", "prompt_id"]
    means = completions.groupby(keys, sort=False)[list(columns)].mean().reset_index()
    merged = rows.merge(means, on=keys, how="left", validate="one_to_one")
    receipts = [c for c in merged if str(c).startswith("receipt_")]
    return merged[[c for c in merged if c not in receipts] + receipts]


def generating(directions: Directions, chosen: Sequence[int], n_controls: int) -> list[int]:
    """Indices of the directions that get completions: the chosen ones and the first controls."""
    controls = [i for i, family in enumerate(directions.families) if family != CANDIDATE]
    return [*chosen, *controls[:n_controls]]
