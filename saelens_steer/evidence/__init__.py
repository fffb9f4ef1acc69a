"""Is it more than a random push of the same size would do?"""

from saelens_steer.evidence.claims import claims
from saelens_steer.evidence.controls import draw_controls
from saelens_steer.evidence.grid import ROW_COLUMNS
from saelens_steer.evidence.headline import headline
from saelens_steer.evidence.summary import summarise

__all__ = ["ROW_COLUMNS", "claims", "draw_controls", "headline", "summarise"]
