"""Partial forward passes for both model classes, and the gradient at a hook.

Rows are left-padded; `mask` is True at real tokens. Hooks on the model apply everywhere except at
the final norm and the unembedding, which are computed here, in float32.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saelens_steer.errors import InputError
from saelens_steer.model.hooks import (
    MLP_INPUT,
    check_hook_name,
    flat,
    hook_layer,
    in_block,
)
from saelens_steer.model.model_class import Model, is_bridge
from saelens_steer.tensors import Logits, Mask, PerRow, Resid, Tokens

VOCAB_CHUNK = 32_768
Columns = Int[Tensor, " column"]


def check_length(model: Model, n_tokens: int) -> None:
    """InputError if there are more positions than n_ctx."""
    if n_tokens > model.cfg.n_ctx:
        raise InputError(
            f"{n_tokens} positions are more than the model's n_ctx={model.cfg.n_ctx}; "
            "shorten the prompts or load the model with a larger n_ctx."
        )


@torch.no_grad()
def run_to_hook(model: Model, tokens: Tokens, mask: Mask, hook_name: str) -> Resid:
    """The activation at a hook, arbitrary at padding; layers above the hook are not run.

    At `attn.hook_z`, the heads of a position are one vector, n_heads · d_head wide. At
    `mlp.hook_in`, a HookedTransformer without that hook gives its MLP's input.
    """
    check_readable(model, hook_name)
    activation = flat(hook_name, _read(model, tokens, mask, hook_name))
    if activation.ndim != 3:
        raise InputError(
            f"The hook {hook_name!r} holds one vector for each head; use a residual-stream hook, "
            "such as hook_resid_pre, or attn.hook_z."
        )
    return activation


def check_readable(model: Model, hook_name: str) -> str:
    """`check_hook_name`, for a hook that `run_to_hook` can read: `mlp.hook_in` in both classes."""
    layer = hook_layer(hook_name)
    if in_block(hook_name) != MLP_INPUT or is_bridge(model):
        return check_hook_name(model, hook_name)
    check_hook_name(model, f"blocks.{layer}.hook_mlp_out")
    if str(model.cfg.normalization_type).endswith("Pre"):
        raise InputError(
            f"The MLP's input at {hook_name!r} lacks the norm's weights, which are folded into "
            "other weights; load the model with load_model, or with fold_ln=False."
        )
    return hook_name


def _mlp_input(model: Model, tokens: Tokens, mask: Mask, layer: int) -> Resid:
    """The MLP's input in a layer of a HookedTransformer."""
    seen: list[Tensor] = []

    def note(module: Any, args: tuple[Any, ...]) -> None:  # noqa: ARG001 (torch passes it)
        seen.append(args[0])

    handle = model.blocks[layer].mlp.register_forward_pre_hook(note)
    try:
        model(tokens, attention_mask=mask.long(), stop_at_layer=layer + 1)
    finally:
        handle.remove()
    return seen[0]


def _read(model: Model, tokens: Tokens, mask: Mask, hook_name: str) -> Tensor:
    """run_with_cache up to one hook; hook_resid_pre needs only the layers below it."""
    check_length(model, tokens.shape[1])
    layer = hook_layer(hook_name)
    if not is_bridge(model) and hook_name == f"blocks.{layer}.hook_resid_pre":
        resid = model(tokens, attention_mask=mask.long(), stop_at_layer=layer)
        return model.blocks[layer].hook_resid_pre(resid)
    if not is_bridge(model) and in_block(hook_name) == MLP_INPUT:
        return _mlp_input(model, tokens, mask, layer)
    # A bridge that runs its last layer also unembeds: restrict that to one position.
    _, cache = model.run_with_cache(
        tokens,
        attention_mask=mask.long(),
        names_filter=lambda name: name == hook_name,
        stop_at_layer=layer + 1,
        return_cache_object=False,
        **_one_position(model),
    )
    return cache[hook_name]


def _one_position(model: Model) -> dict[str, Any]:
    """The option that makes a bridge unembed only the last position, if its module has one."""
    if not is_bridge(model):
        return {}
    module: Any = model.original_model
    taken = inspect.signature(module.forward).parameters
    return {"logits_to_keep": 1} if "logits_to_keep" in taken else {}


@torch.no_grad()
def resid_to_last(
    model: Model, resid: Resid, mask: Mask, start_layer: int
) -> Float[Tensor, "batch d_model"]:
    """The final residual at the last position, from `start_layer` on.

    `resid` is the activation at `blocks.{start_layer}.hook_resid_pre`. InputError for a
    TransformerBridge, which cannot start midway.
    """
    if is_bridge(model):
        raise InputError(
            "A TransformerBridge cannot start at a layer; run full forward passes, or load the "
            "model with class HookedTransformer."
        )
    final = model(
        resid.to(model.cfg.dtype),
        start_at_layer=start_layer,
        stop_at_layer=model.cfg.n_layers,
        attention_mask=mask.long(),
    )
    return final[:, -1]


@torch.no_grad()
def last_token_logits(
    model: Model, tokens: Tokens, mask: Mask, columns: Columns | None = None
) -> Logits:
    """Logits at the last position, float32; no other position is unembedded.

    `columns` restricts the logits to these token ids, in this order.
    """
    check_length(model, tokens.shape[1])
    if is_bridge(model):
        top = f"blocks.{model.cfg.n_layers - 1}.hook_resid_post"
        final = _read(model, tokens, mask, top)
    else:
        final = model(tokens, attention_mask=mask.long(), stop_at_layer=model.cfg.n_layers)
    return unembed(model, final[:, -1], columns)


@torch.no_grad()
def unembed(
    model: Model, resid_last: Float[Tensor, "batch d_model"], columns: Columns | None = None
) -> Logits:
    """Final norm and unembedding in float32, whatever the model's dtype.

    `columns` restricts the logits to these token ids, in this order.
    """
    return unembed_with_gradients(model, resid_last, columns)


def unembed_with_gradients(
    model: Model, resid_last: Float[Tensor, "batch d_model"], columns: Columns | None = None
) -> Logits:
    """`unembed`, differentiable."""
    x = _final_norm(model, resid_last.float())
    W_U, b_U = model.unembed.W_U, model.unembed.b_U
    if columns is not None:
        W_U, b_U = W_U[:, columns.to(W_U.device)], b_U[columns.to(b_U.device)]
    if W_U.dtype == torch.float32:
        logits = x @ W_U + b_U
    else:  # converted in chunks: a float32 copy of W_U may not fit in memory
        pieces = zip(W_U.split(VOCAB_CHUNK, dim=1), b_U.split(VOCAB_CHUNK), strict=True)
        logits = torch.cat([x @ W.float() + b.float() for W, b in pieces], dim=1)
    return _capped(model, logits)


@torch.no_grad()
def final_logits(model: Model, resid_last: Float[Tensor, "batch d_model"]) -> Logits:
    """Logits to sample from: like `unembed`, but with the product in the model's dtype."""
    x = _final_norm(model, resid_last.float()).to(model.unembed.W_U.dtype)
    return _capped(model, (x @ model.unembed.W_U + model.unembed.b_U).float())


@torch.no_grad()
def reading_direction(model: Model, ids: Columns) -> Float[Tensor, " d_model"]:
    """The direction in the final residual that raises the mean logit of these tokens, float32.

    Its dot product with v is the mean of `direct_logits` of v over the tokens, before that function
    subtracts the mean over the vocabulary.
    """
    mean = model.unembed.W_U[:, ids.to(model.unembed.W_U.device)].float().mean(1)
    return _centred(model, mean * _norm_weight(model))


@torch.no_grad()
def direct_logits(model: Model, vectors: Float[Tensor, "n d_model"]) -> Logits:
    """The change in logits when each vector is added to the final residual, mean-centred, float32.

    The final norm's division is left out, so logits are known up to a common factor. This is the
    logit lens (nostalgebraist 2020) of a direction.
    """
    x = _centred(model, vectors.float().to(model.unembed.W_U.device)) * _norm_weight(model)
    pieces = [x @ W.float() for W in model.unembed.W_U.split(VOCAB_CHUNK, dim=1)]
    logits = torch.cat(pieces, dim=1)
    return logits - logits.mean(dim=1, keepdim=True)


def _capped(model: Model, logits: Logits) -> Logits:
    cap = getattr(model.cfg, "output_logits_soft_cap", None) or 0.0
    return torch.tanh(logits / cap) * cap if cap > 0 else logits


def _norm_weight(model: Model) -> Tensor:
    """The final norm's weights, float32; 1 if it has none."""
    weight = weight_of_norm(getattr(model, "ln_final", None))
    return torch.ones((), device=model.unembed.W_U.device) if weight is None else weight


def weight_of_norm(norm: Any) -> Tensor | None:
    """The factors that a norm multiplies by, float32; None if it has no weights.

    Some modules in a bridge multiply by 1 + their weights, which their output on ones shows.
    """
    weight, module = getattr(norm, "w", None), getattr(norm, "original_component", None)
    if weight is None or module is None or isinstance(module, torch.nn.LayerNorm):
        return None if weight is None else weight.float()
    with torch.no_grad():
        offset = (module(torch.ones_like(weight)[None])[0] - weight).float().mean().round()
    return weight.float() + offset


def _centred(model: Model, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
    """x minus its mean over d_model if the final norm is a LayerNorm; x itself otherwise."""
    return x - x.mean(dim=-1, keepdim=True) if subtracts_mean(model) else x


def subtracts_mean(model: Model) -> bool:
    """Whether the norms are LayerNorms, the final one too: no logit depends on the mean of x.

    Only such models have centred weights after TransformerLens's `center_writing_weights`.
    """
    layer_norms = (model.cfg.normalization_type or "").startswith("LN")
    return layer_norms and not getattr(model.cfg, "final_rms", False)


def _final_norm(model: Model, x: Float[Tensor, "batch d_model"]) -> Float[Tensor, "batch d_model"]:
    """The model's RMSNorm or LayerNorm before the unembedding, with weights if it has them."""
    if model.cfg.normalization_type is None:
        return x
    x = _centred(model, x)
    x = x / (x.pow(2).mean(dim=-1, keepdim=True) + model.cfg.eps).sqrt()
    x = x * _norm_weight(model)
    bias = getattr(getattr(model, "ln_final", None), "b", None)
    return x if bias is None else x + bias.float()


def resid_gradient(
    model: Model, tokens: Tokens, mask: Mask, hook_name: str, of: Callable[[Logits], PerRow]
) -> Resid:
    """The gradient of `of`(last-token logits) at every position of a hook, float32, 0 at padding.

    Weights get no gradients. InputError if `of` is not differentiable or a gradient not finite.
    """
    check_hook_name(model, hook_name)
    check_length(model, tokens.shape[1])
    seen: dict[str, Tensor] = {}

    def enter(x: Tensor, hook: Any) -> Tensor:  # noqa: ARG001 (TransformerLens passes hook=)
        seen["x"] = x.detach().requires_grad_(True)
        return seen["x"]

    def leave(x: Tensor, hook: Any) -> None:  # noqa: ARG001
        seen["final"] = x

    top = f"blocks.{model.cfg.n_layers - 1}.hook_resid_post"
    end = _one_position(model) if is_bridge(model) else {"stop_at_layer": model.cfg.n_layers}
    with torch.enable_grad(), model.hooks(fwd_hooks=[(hook_name, enter), (top, leave)]):
        model(tokens, attention_mask=mask.long(), **end)
        value = of(unembed_with_gradients(model, seen["final"][:, -1]))
        if not value.requires_grad:
            raise InputError(
                "attribution needs a metric that torch can differentiate; choose another metric"
            )
        (gradient,) = torch.autograd.grad(value.sum(), seen["x"])
    if not gradient[mask.to(gradient.device)].isfinite().all():
        raise InputError(
            "Attribution found no finite gradient, as happens with a TransformerBridge in "
            "compatibility mode and padded rows: load the model with load_model, or use prompts of "
            "the same length."
        )
    gradient = flat(hook_name, gradient)
    return torch.where(mask[..., None].to(gradient.device), gradient.float(), 0.0)
