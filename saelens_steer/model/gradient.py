"""How a number read off the next-token logits changes with the activations at a hook."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from saelens_steer.errors import InputError
from saelens_steer.model.forward import check_length, unembed_with_gradients
from saelens_steer.model.hooks import check_hook_name
from saelens_steer.model.kinds import Model, is_bridge
from saelens_steer.tensors import Logits, Mask, PerRow, Resid, Tokens


def resid_gradient(
    model: Model, tokens: Tokens, mask: Mask, hook_name: str, of: Callable[[Logits], PerRow]
) -> Resid:
    """d of(last-token logits) / d x at every position of a hook, 0 at padding, float32.

    Rows are left-padded, `mask` is True at real tokens. Weights get no gradients. Raises InputError
    where `of` cannot be differentiated.
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
    end: dict[str, Any] = (
        {"logits_to_keep": 1} if is_bridge(model) else {"stop_at_layer": model.cfg.n_layers}
    )
    with torch.enable_grad(), model.hooks(fwd_hooks=[(hook_name, enter), (top, leave)]):
        model(tokens, attention_mask=mask.long(), **end)
        value = of(unembed_with_gradients(model, seen["final"][:, -1]))
        if not value.requires_grad:
            raise InputError("attribution needs a metric that can be differentiated in torch")
        (gradient,) = torch.autograd.grad(value.sum(), seen["x"])
    return torch.where(mask[..., None].to(gradient.device), gradient.float(), 0.0)
