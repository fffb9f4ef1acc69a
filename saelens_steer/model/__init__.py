"""Load a model of either class, prove that it equals its checkpoint, and run it."""

from saelens_steer.model.engine.decode import EditSite, Rows, Steer, decode, prefill
from saelens_steer.model.engine.layers import (
    AttentionFn,
    HookEdit,
    Layer,
    PerHead,
    untouched,
    visible,
)
from saelens_steer.model.engine.plain_layers import plain_layers, why_not
from saelens_steer.model.engine.token_tree import Group, Tree, tree_of
from saelens_steer.model.forward import (
    check_length,
    direct_logits,
    last_token_logits,
    reading_direction,
    resid_gradient,
    resid_to_last,
    run_to_hook,
    unembed,
)
from saelens_steer.model.generation import generate, stop_token_ids
from saelens_steer.model.given import Processing, processing_of
from saelens_steer.model.hooks import (
    check_editable,
    check_hook_name,
    check_stream,
    default_hook_name,
    hook_layer,
    same_places,
    writes_to_stream,
)
from saelens_steer.model.load import checkpoint_of, load_model
from saelens_steer.model.parity import ParityError, compare_on, tolerance
from saelens_steer.model.provenance import (
    model_fingerprint,
    model_provenance,
    origin_of,
)
