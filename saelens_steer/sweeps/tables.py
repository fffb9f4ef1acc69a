"""Tables of rows, with names in place of numbers of cells and prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from saelens_steer.config import SweepSpec
from saelens_steer.data import Prompt
from saelens_steer.sweeps.cells import Cell, SweepCells
from saelens_steer.sweeps.logits import LogitSweep
from saelens_steer.sweeps.texts import CompletionSweep

RECEIPT = "receipt_"


def logit_table(
    sweep: LogitSweep,
    shard: range,
    rows: pd.DataFrame,
    unsteered: pd.DataFrame,
    prompts: Sequence[Prompt],
    spec: SweepSpec,
) -> pd.DataFrame:
    """One row per direction × α × prompt of a shard, α = 0 included for each direction."""
    nothing = {"receipt_positions": 0, "receipt_push": 0.0, "receipt_rel_norm": 0.0}
    zero = unsteered.assign(alpha=0.0, **nothing)
    moved = _placed(rows, sweep.cells)
    directions = sorted({sweep.cells[cell][0] for cell in shard})
    return _assembled(sweep, zero, moved, directions, prompts, spec)


def completion_table(
    sweep: CompletionSweep, rows: pd.DataFrame, prompts: Sequence[Prompt], spec: SweepSpec
) -> pd.DataFrame:
    """One row per direction × α × prompt × sample; the unsteered text is repeated."""
    placed = _placed(rows, sweep.cells)
    zero, moved = placed.query("alpha == 0"), placed.query("alpha != 0")
    return _assembled(sweep, zero, moved, range(len(sweep.directions)), prompts, spec)


def with_text_metrics(
    rows: pd.DataFrame, completions: pd.DataFrame, columns: Sequence[str]
) -> pd.DataFrame:
    """Add text metrics, averaged over samples; NaN for rows without completions."""
    keys = ["direction", "alpha", "prompt_id"]
    grouped: Any = completions.groupby(keys, sort=False)[[*columns]]
    means = grouped.mean().reset_index()
    return _receipts_last(rows.merge(means, on=keys, how="left", validate="one_to_one"))


def _placed(rows: pd.DataFrame, cells: Sequence[Cell]) -> pd.DataFrame:
    """Rows with the direction's number and α of their cell."""
    which = rows["cell"].to_numpy()
    directions, alphas = (np.array(column) for column in zip(*cells, strict=True))
    return rows.assign(direction=directions[which], alpha=alphas[which].astype(float))


def _assembled(
    sweep: SweepCells,
    zero: pd.DataFrame,
    moved: pd.DataFrame,
    which: Sequence[int],
    prompts: Sequence[Prompt],
    spec: SweepSpec,
) -> pd.DataFrame:
    """Steered rows, the unsteered rows repeated for each direction, sorted and named."""
    repeated = [zero.assign(direction=d) for d in which]
    table = pd.concat([*repeated, moved], ignore_index=True)
    order = [c for c in ("direction", "alpha", "prompt", "sample") if c in table]
    table = table.sort_values(order, kind="stable", ignore_index=True)
    front = _front(table, sweep, prompts, spec)
    rest = table.drop(columns=["cell", "direction", "alpha", "prompt"])
    return _receipts_last(pd.concat([front, rest], axis=1))


def _front(
    table: pd.DataFrame, sweep: SweepCells, prompts: Sequence[Prompt], spec: SweepSpec
) -> pd.DataFrame:
    """The columns that identify each row."""
    which, prompt = table["direction"].to_numpy(), table["prompt"].to_numpy()
    directions = sweep.directions
    columns: dict[str, Any] = {
        "direction": np.array(directions.names, dtype=object)[which],
        "family": np.array(directions.families, dtype=object)[which],
        "feature": pd.array([directions.features[d] for d in which], dtype="Int64"),
        "edit": spec.edit.label,
        "hook_name": sweep.unsteered_pass.hook_name,
        "positions": sweep.unsteered_pass.positions,
        "alpha": table["alpha"].to_numpy(),
        "alpha_unit": spec.alpha_unit,
        "prompt_id": np.array([p.id for p in prompts], dtype=object)[prompt],
        "domain": np.array([p.domain for p in prompts], dtype=object)[prompt],
        "matched_norm": np.array(directions.sizes)[which],
    }
    if any(directions.matched_to):
        matched_to = [directions.matched_to[d] for d in which]
        columns["matched_to"] = pd.array(matched_to, dtype="string")
    return pd.DataFrame(columns)


def _receipts_last(table: pd.DataFrame) -> pd.DataFrame:
    receipts = [str(c) for c in table.columns if str(c).startswith(RECEIPT)]
    return table.filter([c for c in table.columns if c not in receipts] + receipts)
