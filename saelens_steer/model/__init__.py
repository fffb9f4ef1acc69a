"""Models: loaded, proved equal to their checkpoint, and run, for both classes alike."""

from saelens_steer.model.decode import Place, read_prompts, write_on
from saelens_steer.model.forward import (
    can_start_at_layer,
    check_length,
    direct_logits,
    last_token_logits,
    reading_direction,
    resid_to_last,
    run_to_hook,
    unembed,
)
from saelens_steer.model.generation import generate, stop_token_ids
from saelens_steer.model.gradient import resid_gradient
from saelens_steer.model.hooks import (
    check_editable,
    check_hook_name,
    check_stream,
    default_hook_name,
    hook_layer,
    same_places,
    writes_to_stream,
)
from saelens_steer.model.kinds import Model, ModelClass, is_bridge
from saelens_steer.model.layers import Layer
from saelens_steer.model.layout import plain_layers, why_not
from saelens_steer.model.loading import load_model
from saelens_steer.model.parity import Parity, ParityError
from saelens_steer.model.source import model_fingerprint, model_provenance
from saelens_steer.model.tree import Tree, tree_of

__all__ = [
    "Layer",
    "Model",
    "ModelClass",
    "Parity",
    "ParityError",
    "Place",
    "Tree",
    "can_start_at_layer",
    "check_editable",
    "check_hook_name",
    "check_length",
    "check_stream",
    "default_hook_name",
    "direct_logits",
    "generate",
    "hook_layer",
    "is_bridge",
    "last_token_logits",
    "load_model",
    "model_fingerprint",
    "model_provenance",
    "plain_layers",
    "read_prompts",
    "reading_direction",
    "resid_gradient",
    "resid_to_last",
    "run_to_hook",
    "same_places",
    "stop_token_ids",
    "tree_of",
    "unembed",
    "why_not",
    "write_on",
    "writes_to_stream",
]
