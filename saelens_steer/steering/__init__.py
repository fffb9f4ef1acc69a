"""Edits of the model's activations, and the context that applies them."""

from saelens_steer.steering.apply import (
    Receipt,
    changes,
    edit_where,
    relative_norms,
    row_rel_norm,
    steered,
    steered_shares,
)
from saelens_steer.steering.builders import BUILDERS, EditContext, Target, build_edit
from saelens_steer.steering.directions import (
    CANDIDATE,
    CONTROL_PREFIX,
    UNITS_NEEDING_ACTIVATIONS,
    Directions,
    direction_label,
    feature_directions,
    matched_controls,
    per_candidate_controls,
    plain_directions,
    scaled_vectors,
    tested_vectors,
)
from saelens_steer.steering.edits import (
    Edit,
    add,
    add_rows,
    as_edits,
    of_parts,
    orthogonal_part,
    per_row,
    project_out,
)
from saelens_steer.steering.gates import activations_of
from saelens_steer.steering.padding import first_tokens
from saelens_steer.steering.positions import Positions, columns, norm_limits, within
from saelens_steer.steering.sae_edits import (
    SAEEdit,
    ablate,
    composed,
    reconstruct,
    scale,
    set_to,
    suppress_and_boost,
)
from saelens_steer.steering.variants import EditInputs, Variant, build_variant, stacked
from saelens_steer.steering.vectors import (
    SteeringVectors,
    file_kind,
    load_vectors,
    save_vectors,
    vectors_at,
    vectors_version,
)
