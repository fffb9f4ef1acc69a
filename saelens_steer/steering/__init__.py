"""Edits of the model's activations, and the context that applies them."""

from saelens_steer.steering.apply import Receipt, edit_where, relative_norms, row_rel_norm, steered
from saelens_steer.steering.edits import Edit, add, per_row, project_out
from saelens_steer.steering.latents import (
    SAEEdit,
    ablate,
    composed,
    reconstruct,
    scale,
    set_to,
    splices,
    suppress_and_boost,
)
from saelens_steer.steering.positions import (
    KINDS,
    Positions,
    check_positions,
    columns,
    norm_limits,
    within,
)
from saelens_steer.steering.strength import MEASURED, unit_vectors
from saelens_steer.steering.variants import Known, Variant, build_variant, variant_of
from saelens_steer.steering.vectors import SteeringVectors, file_kind, load_vectors, save_vectors

__all__ = [
    "KINDS",
    "MEASURED",
    "Edit",
    "Known",
    "Positions",
    "Receipt",
    "SAEEdit",
    "SteeringVectors",
    "Variant",
    "ablate",
    "add",
    "build_variant",
    "check_positions",
    "columns",
    "composed",
    "edit_where",
    "file_kind",
    "load_vectors",
    "norm_limits",
    "per_row",
    "project_out",
    "reconstruct",
    "relative_norms",
    "row_rel_norm",
    "save_vectors",
    "scale",
    "set_to",
    "splices",
    "steered",
    "suppress_and_boost",
    "unit_vectors",
    "variant_of",
    "within",
]
