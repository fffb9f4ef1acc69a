"""Is it more than a random push of the same size would do?"""

from saelens_steer.evidence.by_family import by_family
from saelens_steer.evidence.claims import (
    FAILS,
    PASSES,
    UNMEASURED,
    claims,
    least_controls,
    matched_by,
)
from saelens_steer.evidence.controls import OF_ACTIVATIONS, controls_of, draw_controls
from saelens_steer.evidence.families import Known
from saelens_steer.evidence.grid import ROW_COLUMNS
from saelens_steer.evidence.guards import guards
from saelens_steer.evidence.headline import headline
from saelens_steer.evidence.statistics import bootstrap_interval, bootstrap_weights, prompt_mean
from saelens_steer.evidence.summary import summarise
