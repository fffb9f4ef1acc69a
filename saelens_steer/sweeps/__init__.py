"""Directions × strengths × prompts: planned, run in batches, kept in shards."""

from saelens_steer.sweeps.cells import grid
from saelens_steer.sweeps.completions import CompletionSweep
from saelens_steer.sweeps.engine import LogitSweep, activation_of, measure, measured, rows_of
from saelens_steer.sweeps.ground import HALF_TOLERANCE, Ground
from saelens_steer.sweeps.matching import matched_steps
from saelens_steer.sweeps.room import Room
from saelens_steer.sweeps.run import WRITTEN, generating, logit_shards, run_completions, unsteered
from saelens_steer.sweeps.store import KEPT_NOWHERE, Store
from saelens_steer.sweeps.tables import Labels, completion_table, logit_table, with_text_metrics
