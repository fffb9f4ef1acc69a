"""Directions × strengths × prompts: planned, run in batches, kept in shards."""

from saelens_steer.sweeps.calibrate import calibrated_steps, kl_steps, mean_kls
from saelens_steer.sweeps.cells import grid
from saelens_steer.sweeps.completions import CompletionSweep
from saelens_steer.sweeps.directions import (
    CANDIDATE,
    Directions,
    feature_directions,
    matched_controls,
    own_controls,
    plain_directions,
)
from saelens_steer.sweeps.engine import LogitSweep, activation_of, measure, measured, rows_of
from saelens_steer.sweeps.ground import Ground
from saelens_steer.sweeps.matching import matched_steps
from saelens_steer.sweeps.room import Room
from saelens_steer.sweeps.run import (
    generating,
    logit_shards,
    run_completions,
    run_logits,
    unsteered,
)
from saelens_steer.sweeps.store import KEPT_NOWHERE, Store
from saelens_steer.sweeps.tables import Labels, completion_table, logit_table, with_text_metrics

__all__ = [
    "CANDIDATE",
    "KEPT_NOWHERE",
    "CompletionSweep",
    "Directions",
    "Ground",
    "Labels",
    "LogitSweep",
    "Room",
    "Store",
    "activation_of",
    "calibrated_steps",
    "completion_table",
    "feature_directions",
    "generating",
    "grid",
    "kl_steps",
    "logit_shards",
    "logit_table",
    "matched_controls",
    "matched_steps",
    "mean_kls",
    "measure",
    "measured",
    "own_controls",
    "plain_directions",
    "rows_of",
    "run_completions",
    "run_logits",
    "unsteered",
    "with_text_metrics",
]
