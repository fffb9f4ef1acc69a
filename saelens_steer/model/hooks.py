"""Names of hooks: which exist, at which layer, and what would have been right."""

from __future__ import annotations

import difflib
import re

from saelens_steer.errors import InputError
from saelens_steer.model.model_class import Model, is_bridge

BLOCK = re.compile(r"blocks\.(\d+)\.(.+)")
TWINS = {"hook_resid_post": ("hook_resid_pre", 1), "hook_resid_pre": ("hook_resid_post", -1)}
"""The same vectors under another name, that many layers further on."""


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


def same_places(hook_name: str) -> tuple[str, ...]:
    """The name itself, and the other name of the same vectors if they have one.

    blocks.L.hook_resid_post is blocks.L+1.hook_resid_pre, unless L is the last layer.
    """
    found = BLOCK.fullmatch(hook_name)
    if found is None or found[2] not in TWINS:
        return (hook_name,)
    twin, step = TWINS[found[2]]
    layer = int(found[1]) + step
    return (hook_name, f"blocks.{layer}.{twin}") if layer >= 0 else (hook_name,)


def check_hook_name(model: Model, hook_name: str) -> str:
    """The name itself, if a hook of that name fires in this model.

    InputError before any forward pass otherwise, with the layer range or the nearest names:
    TransformerBridge silently ignores unknown names.
    """
    layer = hook_layer(hook_name)
    if layer >= model.cfg.n_layers:
        raise InputError(
            f"The hook {hook_name!r} is in layer {layer}, but the model has layers "
            f"0 to {model.cfg.n_layers - 1}; choose one of them."
        )
    if hook_name not in model.hook_dict:
        raise InputError(f"There is no hook {hook_name!r}; {_instead(model, hook_name)}")
    _refuse_switched_off(model, hook_name)
    return hook_name


def check_editable(model: Model, hook_name: str) -> str:
    """As check_hook_name, for a hook at which activations are changed, not only read.

    A TransformerBridge calls `hook_resid_mid` off the path, so an edit there does something else.
    """
    check_hook_name(model, hook_name)
    if is_bridge(model) and hook_name.endswith("hook_resid_mid"):
        raise InputError(
            f"Edits at {hook_name!r} do not take effect in a TransformerBridge; "
            "use hook_resid_pre or hook_resid_post, or class HookedTransformer."
        )
    return hook_name


STREAM = ("hook_resid_pre", "hook_resid_mid", "hook_resid_post", "hook_mlp_out", "hook_attn_out")
"""Hooks that hold one vector of d_model for each position.

If a norm follows the MLP and the attention, as in Gemma 3, `hook_mlp_out` and `hook_attn_out`
come after it in both classes: they hold what is added to the residual stream.
"""

BEFORE_NORM = ("mlp.hook_out", "attn.hook_out")
"""As STREAM, but before such a norm: the outputs of the MLP and attention modules, as Hugging Face
hooks would see them. Only a TransformerBridge has these hooks.
"""


def check_stream(model: Model, hook_name: str) -> str:
    """As check_editable, for a hook that holds one vector for each position."""
    check_editable(model, hook_name)
    allowed = (*STREAM, *BEFORE_NORM) if is_bridge(model) else STREAM
    if _in_block(hook_name) not in allowed:
        raise InputError(
            f"The hook {hook_name!r} holds no vector of the residual stream's width for each "
            f"position; use one of {', '.join(allowed)}."
        )
    return hook_name


def writes_to_stream(hook_name: str) -> bool:
    """Whether the hook holds the residual stream, or something that is added to it unchanged."""
    return _in_block(hook_name) in STREAM


def _in_block(hook_name: str) -> str:
    """The name of a hook inside its layer, `mlp.hook_out` of `blocks.4.mlp.hook_out`."""
    found = BLOCK.fullmatch(hook_name)
    return found[2] if found else hook_name


def _instead(model: Model, hook_name: str) -> str:
    """What to use in place of a hook that this model does not have."""
    if _in_block(hook_name) in BEFORE_NORM and not is_bridge(model):
        part = _in_block(hook_name).split(".")[0]
        return f"use hook_{part}_out, or load the model with class TransformerBridge."
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
