"""Measure directions × strengths × prompts, in batches kept as shards."""

from saelens_steer.sweeps.cells import grid
from saelens_steer.sweeps.compare_edits import (
    ORIGINAL,
    EditComparison,
    check_comparable,
    check_room,
    edits_table,
)
from saelens_steer.sweeps.edits import UNEDITED, MatchedPush, edit_at
from saelens_steer.sweeps.logits import LogitSweep, measure, measured_batches, rows_of
from saelens_steer.sweeps.measurement import Measurement
from saelens_steer.sweeps.plan import BatchSplitter
from saelens_steer.sweeps.store import NO_STORE, Store
from saelens_steer.sweeps.strengths import kl_steps
from saelens_steer.sweeps.texts import COMPLETION_BATCH_FACTOR, CompletionSweep, run_completions
from saelens_steer.sweeps.unsteered_pass import HALF_TOLERANCE, UnsteeredPass
from saelens_steer.sweeps.variant_texts import VariantTexts
