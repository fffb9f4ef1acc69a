"""Tables, claims and warnings: is an effect larger than those of random directions?"""

from saelens_steer.evidence.claims import (
    FAILS,
    PASSES,
    UNMEASURED,
    by_family,
    claims,
    lacking_controls,
    least_controls,
)
from saelens_steer.evidence.grid import ROW_COLUMNS, summarise
from saelens_steer.evidence.guards import guards
from saelens_steer.evidence.headline import headline
from saelens_steer.evidence.matching import PUSHES, edit_of, matched_by
from saelens_steer.evidence.tabulate_comparison import ASKING, comparison_table
from saelens_steer.evidence.tabulate_tradeoffs import (
    EQUAL_EFFECT,
    GRID,
    LOSS,
    Damage,
    by_domain_table,
    tradeoffs_table,
)
