"""Load a model of either class, prove that it equals its checkpoint, and run it."""

from saelens_steer.model.engine.decode import EditSite, Rows, Steer, decode, prefill
from saelens_steer.model.engine.layers import (
    EDITABLE,
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
    check_readable,
    direct_logits,
    last_token_logits,
    reading_direction,
    resid_gradient,
    resid_to_last,
    run_to_hook,
    subtracts_mean,
    unembed,
)
from saelens_steer.model.generation import generate, generating_with, stop_token_ids
from saelens_steer.model.gguf import GGUF_DAMAGE, gguf_package
from saelens_steer.model.given import writes_centred
from saelens_steer.model.hooks import (
    MLP_INPUT,
    check_editable,
    check_hook_name,
    check_steerable,
    check_stream,
    default_hook_name,
    flat,
    hook_layer,
    hook_width,
    hooked_module,
    in_block,
    same_places,
    writes_to_stream,
)
from saelens_steer.model.load import checkpoint_of, load_model
from saelens_steer.model.model_class import is_bridge
from saelens_steer.model.parity import ParityError, compare_on, tolerance
from saelens_steer.model.provenance import (
    REMEMBERED,
    model_fingerprint,
    model_provenance,
    origin_of,
)
