"""Check hook names, and find the layer of each."""

from __future__ import annotations

import difflib
import re
from typing import Any

from torch import Tensor

from saelens_steer.config import BLOCK, hook_layer
from saelens_steer.errors import InputError
from saelens_steer.model.model_class import Model, is_bridge

TWINS = {"hook_resid_post": ("hook_resid_pre", 1), "hook_resid_pre": ("hook_resid_post", -1)}
"""The other name of the same activation, and its layer relative to this one."""


def default_hook_name(model: Model) -> str:
    """The residual stream before the middle layer."""
    _check_model(model)
    return f"blocks.{model.cfg.n_layers // 2}.hook_resid_pre"


def same_places(hook_name: str) -> tuple[str, ...]:
    """The name, and the other name of the same activation if it has one.

    blocks.L.hook_resid_post is blocks.L+1.hook_resid_pre. After the last layer no hook has that
    name, though it is returned; blocks.0.hook_resid_pre has no other name.
    """
    found = BLOCK.fullmatch(hook_name)
    if found is None or found[2] not in TWINS:
        return (hook_name,)
    twin, step = TWINS[found[2]]
    layer = int(found[1]) + step
    return (hook_name, f"blocks.{layer}.{twin}") if layer >= 0 else (hook_name,)


def hooked_module(model: Model, from_layer: int | None = None) -> str | None:
    """The first module with a hook attached: anywhere, or in the layers from `from_layer` on."""
    for name, module in model.named_modules():
        inside = from_layer is None
        if from_layer is not None and name.startswith("blocks."):
            inside = int(name.split(".")[1]) >= from_layer
        if inside and (module._forward_hooks or module._forward_pre_hooks):
            return name or "the whole model"
    return None


def check_hook_name(model: Model, hook_name: str) -> str:
    """Return the name if this model has such a hook and it fires; InputError otherwise.

    A TransformerBridge would silently ignore an unknown name. Every model that is read or steered
    comes through here, so models with SAEs attached are refused here.
    """
    _check_model(model)
    _refuse_attached_saes(model)
    layer = hook_layer(hook_name)
    if layer >= model.cfg.n_layers:
        raise InputError(
            f"The hook {hook_name!r} is in layer {layer}, but the model has only "
            f"layers 0 to {model.cfg.n_layers - 1}."
        )
    if hook_name not in model.hook_dict:
        raise InputError(f"There is no hook {hook_name!r}; {_instead(model, hook_name)}")
    _refuse_switched_off(model, hook_name)
    return hook_name


def _check_model(model: Any) -> None:
    if not hasattr(model, "hook_dict"):
        raise InputError(
            f"model should be a TransformerLens model, not {type(model).__name__}: use load_model"
        )


def _refuse_attached_saes(model: Any) -> None:
    """InputError for a model with SAEs attached: its hooks read the SAEs' output."""
    attached = sorted(getattr(model, "acts_to_saes", None) or {})
    if attached:
        raise InputError(
            f"The model has an SAE attached at {attached[0]}, which changes what hooks read; call "
            "model.reset_saes() first."
        )


def check_editable(model: Model, hook_name: str) -> str:
    """`check_hook_name`, for a hook whose activation will be edited.

    In a TransformerBridge the value at `hook_resid_mid` does not feed the rest of the layer.
    """
    check_hook_name(model, hook_name)
    if is_bridge(model) and hook_name.endswith("hook_resid_mid"):
        raise InputError(
            f"Edits at {hook_name!r} do not take effect in a TransformerBridge; "
            "use hook_resid_pre or hook_resid_post, or load the model with "
            "model_class='HookedTransformer' (model.class)."
        )
    return hook_name


STREAM = ("hook_resid_pre", "hook_resid_mid", "hook_resid_post", "hook_mlp_out", "hook_attn_out")
"""Hooks with one d_model vector for each position.

If norms follow the MLP and attention, as in Gemma 3, `hook_mlp_out` and `hook_attn_out` come after
them in both classes: they hold what is added to the residual stream.
"""

BEFORE_NORM = ("mlp.hook_out", "attn.hook_out")
"""The module outputs before those norms, as Hugging Face hooks see them; TransformerBridge only."""


HEADS = "attn.hook_z"
"""The outputs of all heads, before W_O. Here a position's heads are one vector, n_heads · d_head
wide, as Hugging Face's output projection reads them."""

MLP_INPUT = "mlp.hook_in"
"""The MLP's input, after the norm and its weights. A HookedTransformer has no hook there, but
`run_to_hook` reads it in both classes."""


def check_stream(model: Model, hook_name: str) -> str:
    """`check_editable`, for a hook with one d_model vector for each position."""
    return _check_among(model, hook_name, STREAM, "one d_model vector")


def check_steerable(model: Model, hook_name: str) -> str:
    """`check_editable`, for a hook with one vector for each position; heads count as one vector."""
    return _check_among(model, hook_name, (*STREAM, HEADS), "one vector")


def _check_among(model: Model, hook_name: str, hooks: tuple[str, ...], what: str) -> str:
    check_editable(model, hook_name)
    allowed = (*hooks, *BEFORE_NORM) if is_bridge(model) else hooks
    if in_block(hook_name) not in allowed:
        raise InputError(
            f"{hook_name!r} cannot be used: give a hook that holds {what} for each position and "
            f"is reached once per pass: {', '.join(allowed)}."
        )
    return hook_name


def check_vector_hook(hook_name: str) -> None:
    """Raise InputError unless some model can be steered there."""
    if in_block(hook_name) not in (*STREAM, *BEFORE_NORM, HEADS):
        raise InputError(
            f"No model can be steered at {hook_name!r}: give a hook that holds one vector for each "
            f"position, such as 'blocks.{hook_layer(hook_name)}.hook_resid_pre'"
        )


def hook_width(model: Model, hook_name: str) -> int:
    """The width of a position's vector at a hook that can be steered."""
    cfg = model.cfg
    return cfg.n_heads * cfg.d_head if in_block(hook_name) == HEADS else cfg.d_model


def flat(hook_name: str, activation: Tensor) -> Tensor:
    """The activation with the heads of `attn.hook_z` joined: [batch, pos, n_heads · d_head]."""
    return activation.flatten(2) if in_block(hook_name) == HEADS else activation


def writes_to_stream(hook_name: str) -> bool:
    """Whether the hook holds the residual stream or something added to it unchanged."""
    return in_block(hook_name) in STREAM


def in_block(hook_name: str) -> str:
    """The hook's name within its layer: `mlp.hook_out` for `blocks.4.mlp.hook_out`."""
    found = BLOCK.fullmatch(hook_name)
    return found[2] if found else hook_name


def _instead(model: Model, hook_name: str) -> str:
    """What to use instead of a hook that this model does not have."""
    if in_block(hook_name) in BEFORE_NORM and not is_bridge(model):
        part = in_block(hook_name).split(".")[0]
        return f"use hook_{part}_out, or load the model with class TransformerBridge."
    prefix = f"blocks.{hook_layer(hook_name)}."
    here = [name for name in model.hook_dict if name.startswith(prefix)]
    close = difflib.get_close_matches(hook_name, here, n=3, cutoff=0.6)
    residual = [prefix + name for name in ("hook_resid_pre", "hook_resid_post")]
    return "use one of: " + ", ".join(close or residual) + "."


def _refuse_switched_off(model: Model, hook_name: str) -> None:
    """InputError for a hook that fires only after a model setting is switched on."""
    settings = {
        r"attn\.hook_result": "use_attn_result",
        r"hook_[qkv]_input": "use_split_qkv_input",
        r"hook_mlp_in": "use_hook_mlp_in",
        r"hook_attn_in": "use_attn_in",
    }
    for pattern, setting in settings.items():
        if re.search(pattern + "$", hook_name) and not getattr(model.cfg, setting, False):
            raise InputError(
                f"The hook {hook_name!r} is switched off; call model.set_{setting}(True) first."
            )
