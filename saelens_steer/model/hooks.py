"""Names of hooks: which exist, at which layer, and what would have been right."""

from __future__ import annotations

import difflib
import re

from saelens_steer.errors import InputError
from saelens_steer.model.kinds import Model, is_bridge

BLOCK = re.compile(r"blocks\.(\d+)\.(.+)")


def default_hook_name(model: Model) -> str:
    """The residual stream before the middle layer."""
    return f"blocks.{model.cfg.n_layers // 2}.hook_resid_pre"


def hook_layer(hook_name: str) -> int:
    """The layer a hook sits in; InputError for a hook outside the layers."""
    found = BLOCK.fullmatch(hook_name)
    if found is None:
        raise InputError(
            f"The hook {hook_name!r} is not in a layer; name one like 'blocks.4.hook_resid_pre'."
        )
    return int(found[1])


def check_hook_name(model: Model, hook_name: str) -> str:
    """The name itself, if a hook of that name fires in this model.

    InputError before any forward pass otherwise, with the layer range or the nearest names:
    TransformerBridge ignores unknown names without a word.
    """
    layer = hook_layer(hook_name)
    if layer >= model.cfg.n_layers:
        raise InputError(
            f"The hook {hook_name!r} is in layer {layer}, but the model has layers "
            f"0 to {model.cfg.n_layers - 1}; choose one of them."
        )
    if hook_name not in model.hook_dict:
        raise InputError(f"There is no hook {hook_name!r}; {_nearest(model, hook_name)}")
    _refuse_switched_off(model, hook_name)
    return hook_name


def check_editable(model: Model, hook_name: str) -> str:
    """As check_hook_name, for a hook where activations are changed and not only read.

    A TransformerBridge calls `hook_resid_mid` off the path, so an edit there does something else.
    """
    check_hook_name(model, hook_name)
    if is_bridge(model) and hook_name.endswith("hook_resid_mid"):
        raise InputError(
            f"Edits at {hook_name!r} do not take effect in a TransformerBridge; "
            "use hook_resid_pre or hook_resid_post, or class HookedTransformer."
        )
    return hook_name


STREAM = ("resid_pre", "resid_mid", "resid_post", "mlp_out", "attn_out")
"""Hooks that hold one vector of d_model for each position."""


def check_stream(model: Model, hook_name: str) -> str:
    """As check_editable, for a hook that holds one vector for each position."""
    check_editable(model, hook_name)
    if hook_name.split(".")[-1].removeprefix("hook_") not in STREAM:
        raise InputError(
            f"The hook {hook_name!r} holds no vector of the residual stream's width for each "
            f"position; use one of {', '.join('hook_' + name for name in STREAM)}."
        )
    return hook_name


def _nearest(model: Model, hook_name: str) -> str:
    """What the user may have meant, among the hooks of the same layer."""
    prefix = f"blocks.{hook_layer(hook_name)}."
    here = [name for name in model.hook_dict if name.startswith(prefix)]
    close = difflib.get_close_matches(hook_name, here, n=3, cutoff=0.6)
    residual = [prefix + name for name in ("hook_resid_pre", "hook_resid_post")]
    return "use one of: " + ", ".join(close or residual) + "."


def _refuse_switched_off(model: Model, hook_name: str) -> None:
    """Refuse hooks that exist but never fire until a setting of the model is changed."""
    settings = {
        r"attn\.hook_result": "use_attn_result",
        r"hook_[qkv]_input": "use_split_qkv_input",
        r"hook_mlp_in": "use_hook_mlp_in",
        r"hook_attn_in": "use_attn_in",
    }
    for pattern, setting in settings.items():
        if re.search(pattern + "$", hook_name) and not getattr(model.cfg, setting, False):
            raise InputError(
                f"The hook {hook_name!r} never fires; call model.set_{setting}(True) first."
            )
