"""How the answer changes with the controls: every candidate against each family of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from saelens_steer.evidence import statistics
from saelens_steer.evidence.claims import Peers, deltas_of, families_of, judged
from saelens_steer.evidence.grid import Grid, check_metrics

COLUMNS = [
    *("direction", "feature", "metric", "controls", "n_controls", "control_quantile"),
    *("p_value", "q_value", "verdict"),
]


def by_family(rows: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """direction, feature, metric, controls, n_controls, control_quantile, p_value, q_value and
    verdict, as in `claims`: one row per candidate × metric × family, these in the table's order.

    Empty where the table has no controls. Raises InputError for a table that does not fit.
    """
    check_metrics(rows, metrics)
    grid = Grid.of(rows)
    peers = [Peers.of(grid.directions, family) for family in families_of(grid.directions)]
    tables = [
        _against(grid, own, delta, metric)
        for metric in metrics
        for delta in ([deltas_of(grid, grid.cube(rows, metric))] if peers else [])
        for own in peers
    ]
    table = pd.concat(tables) if tables else pd.DataFrame(columns=COLUMNS)
    return table.sort_index(kind="stable").reset_index(drop=True)


def _against(grid: Grid, peers: Peers, delta: np.ndarray, metric: str) -> pd.DataFrame:
    """One metric against one family, indexed by the candidate's place in the table."""
    statistic = statistics.max_statistic(delta[peers.candidates])
    about = peers.about(grid).assign(metric=metric, controls=peers.family)
    return pd.DataFrame(about.join(judged(peers, delta, statistic))[COLUMNS])
