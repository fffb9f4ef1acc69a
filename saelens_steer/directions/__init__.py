"""Find directions, draw controls, and measure the effects of edits along them."""

from saelens_steer.directions.causal import (
    SIGNED,
    CausalScoring,
    check_causal,
    margin_sets,
    rank_by,
)
from saelens_steer.directions.controls import (
    draw_controls,
    needs_activations,
    with_controls,
)
from saelens_steer.directions.given import DirectionsLike, GivenDirections
from saelens_steer.directions.means_and_probes import (
    Probe,
    difference_of_means,
    linear_probe,
    probe_between,
    vectors_of,
)
from saelens_steer.directions.measure import NamedDirection, Treatment
from saelens_steer.directions.measure_comparison import ComparisonInputs, comparison_rows
from saelens_steer.directions.measure_tradeoffs import TradeoffInputs, tradeoff_rows
from saelens_steer.directions.sources import FINDERS, DirectionFinder, tested_directions
from saelens_steer.directions.text_loss import text_losses
