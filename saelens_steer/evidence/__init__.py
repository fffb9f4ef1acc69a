"""Is it more than a random push of the same size would do?"""

from saelens_steer.evidence.claims import (
    FAILS,
    PASSES,
    UNMEASURED,
    by_family,
    claims,
    least_controls,
    matched_by,
)
from saelens_steer.evidence.grid import ROW_COLUMNS, summarise
from saelens_steer.evidence.guards import guards
from saelens_steer.evidence.headline import headline
from saelens_steer.evidence.tabulate_comparison import ASKING, comparison_table
from saelens_steer.evidence.tabulate_tradeoffs import (
    EQUAL_EFFECT,
    GRID,
    LOSS,
    Damage,
    by_domain_table,
    tradeoffs_table,
)
