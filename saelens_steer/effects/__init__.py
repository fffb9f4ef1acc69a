"""What ways of choosing directions and of pushing along them are worth, by measured effect."""

from saelens_steer.effects.compare import Comparison, comparison_rows, comparison_table
from saelens_steer.effects.edits import NamedDirection, Pair, Surroundings
from saelens_steer.effects.matrix import Matrix, matrix_rows
from saelens_steer.effects.rivals import Finder, unit_rows
from saelens_steer.effects.scores import Trial, margin_sets, rank_by
from saelens_steer.effects.tables import Damage, front_table, matrix_table
