"""Edits of the residual stream, and the context that applies them."""

from saelens_steer.steering.apply import Receipt, edit_where, row_rel_norm, steered
from saelens_steer.steering.edits import Edit, add
from saelens_steer.steering.positions import Positions, check_positions, columns

__all__ = [
    "Edit",
    "Positions",
    "Receipt",
    "add",
    "check_positions",
    "columns",
    "edit_where",
    "row_rel_norm",
    "steered",
]
