"""Where directions come from, and what each kind is worth."""

from saelens_steer.directions.causal import CausalScoring, margin_sets, rank_by
from saelens_steer.directions.comparison import Comparison, comparison_rows
from saelens_steer.directions.controls import OF_ACTIVATIONS, draw_controls
from saelens_steer.directions.edits import DirectionEdit, EditContext, NamedDirection
from saelens_steer.directions.means_and_probes import difference_of_means, linear_probe, vectors_of
from saelens_steer.directions.sources import (
    DirectionFinder,
    tested_directions,
    unit_rows,
    with_controls,
)
from saelens_steer.directions.tradeoffs import Tradeoffs, tradeoff_rows
