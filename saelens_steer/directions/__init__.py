"""Where directions come from, and what each kind is worth."""

from saelens_steer.directions.causal import Trial, margin_sets, rank_by
from saelens_steer.directions.comparison import Comparison, comparison_rows
from saelens_steer.directions.controls import OF_ACTIVATIONS, draw_controls
from saelens_steer.directions.edits import NamedDirection, Pair, Surroundings
from saelens_steer.directions.means_and_probes import difference_of_means, linear_probe, vectors_of
from saelens_steer.directions.sources import Finder, tested_directions, unit_rows, with_controls
from saelens_steer.directions.tradeoffs import Matrix, matrix_rows
