"""From cells and prompt numbers to the table of rows that everything else reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from saelens_steer.steering import Directions
from saelens_steer.sweeps.logits import LogitSweep
from saelens_steer.sweeps.texts import CompletionSweep

RECEIPT = "receipt_"


@dataclass(frozen=True)
class RowLabels:
    """What the rows of a sweep have in common, and the names of its prompts."""

    prompt_ids: Sequence[str]
    domains: Sequence[str]
    edit: str
    hook_name: str
    positions: str
    alpha_unit: str


def logit_table(
    sweep: LogitSweep, shard: range, rows: pd.DataFrame, unsteered: pd.DataFrame, labels: RowLabels
) -> pd.DataFrame:
    """One row per direction × α × prompt of a shard's cells, in their order; each has its α = 0."""
    nothing = {"receipt_positions": 0, "receipt_push": 0.0, "receipt_rel_norm": 0.0}
    zero = unsteered.assign(alpha=0.0, **nothing)
    moved = _placed(rows, sweep.cells)
    directions = sorted({sweep.cells[cell][0] for cell in shard})
    return _assembled(zero, moved, directions, sweep.directions, labels)


def completion_table(sweep: CompletionSweep, rows: pd.DataFrame, labels: RowLabels) -> pd.DataFrame:
    """One row per direction × α × prompt × sample; the unsteered text stands under each."""
    placed = _placed(rows, sweep.cells)
    zero, moved = placed.query("alpha == 0"), placed.query("alpha != 0")
    every = range(len(sweep.directions))
    return _assembled(zero, moved, every, sweep.directions, labels)


def with_text_metrics(
    rows: pd.DataFrame, completions: pd.DataFrame, columns: Sequence[str]
) -> pd.DataFrame:
    """Add each text metric to the rows that have completions: the mean over samples, else NaN."""
    keys = ["direction", "alpha", "prompt_id"]
    grouped: Any = completions.groupby(keys, sort=False)[[*columns]]
    means = grouped.mean().reset_index()
    return _receipts_last(rows.merge(means, on=keys, how="left", validate="one_to_one"))


def _placed(rows: pd.DataFrame, cells: Sequence[tuple[int, float]]) -> pd.DataFrame:
    """Each row's cell spelt out: the direction's number and α."""
    which = rows["cell"].to_numpy()
    directions, alphas = (np.array(column) for column in zip(*cells, strict=True))
    return rows.assign(direction=directions[which], alpha=alphas[which].astype(float))


def _assembled(
    zero: pd.DataFrame,
    moved: pd.DataFrame,
    which: Sequence[int],
    directions: Directions,
    labels: RowLabels,
) -> pd.DataFrame:
    repeated = [zero.assign(direction=d) for d in which]
    table = pd.concat([*repeated, moved], ignore_index=True)
    order = [c for c in ("direction", "alpha", "prompt", "sample") if c in table]
    table = table.sort_values(order, kind="stable", ignore_index=True)
    front = _front(table, directions, labels)
    rest = table.drop(columns=["cell", "direction", "alpha", "prompt"])
    return _receipts_last(pd.concat([front, rest], axis=1))


def _front(table: pd.DataFrame, directions: Directions, labels: RowLabels) -> pd.DataFrame:
    """The columns that say what each row is, with names in place of numbers."""
    which, prompt = table["direction"].to_numpy(), table["prompt"].to_numpy()
    columns: dict[str, Any] = {
        "direction": np.array(directions.names, dtype=object)[which],
        "family": np.array(directions.families, dtype=object)[which],
        "feature": pd.array([directions.features[d] for d in which], dtype="Int64"),
        "edit": labels.edit,
        "hook_name": labels.hook_name,
        "positions": labels.positions,
        "alpha": table["alpha"].to_numpy(),
        "alpha_unit": labels.alpha_unit,
        "prompt_id": np.array(labels.prompt_ids, dtype=object)[prompt],
        "domain": np.array(labels.domains, dtype=object)[prompt],
        "matched_norm": np.array(directions.sizes)[which],
    }
    if any(directions.matched_to):
        whose = [directions.matched_to[d] for d in which]
        columns["matched_to"] = pd.array(whose, dtype="string")
    return pd.DataFrame(columns)


def _receipts_last(table: pd.DataFrame) -> pd.DataFrame:
    receipts = [str(c) for c in table.columns if str(c).startswith(RECEIPT)]
    return table.filter([c for c in table.columns if c not in receipts] + receipts)
