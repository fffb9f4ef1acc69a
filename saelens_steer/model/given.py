"""How TransformerLens processed the weights of a model that the user made."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from saelens_steer.model.hooks import check_hook_name
from saelens_steer.model.model_class import Model, is_weightless

NEGLIGIBLE = 1e-4
"""A mean over d_model below this share of the root mean square counts as zero. In half precision
it is that dtype's own rounding, which is coarser."""


@torch.no_grad()
def writes_centred(model: Model) -> bool:
    """Whether all that is written to the residual stream has mean 0 over d_model, measured.

    `center_writing_weights` makes it so. A few tokens are run, and every layer is looked at. True
    for a model without weights, for which nothing can be measured yet.
    """
    if is_weightless(model):
        return True
    check_hook_name(model, "blocks.0.hook_resid_post")
    tokens = torch.arange(1, 9, device=model.cfg.device)[None] % model.cfg.d_vocab
    seen: list[bool] = []

    def look(resid: Tensor, hook: Any) -> None:  # noqa: ARG001 (TransformerLens passes hook=)
        allowed = max(NEGLIGIBLE, torch.finfo(resid.dtype).eps)
        x = resid.float()
        size = x.pow(2).mean(-1).sqrt()
        seen.append(bool((x.mean(-1).abs() <= allowed * size).all()))

    names = [f"blocks.{layer}.hook_resid_post" for layer in range(model.cfg.n_layers)]
    with model.hooks(fwd_hooks=[("blocks.0.hook_resid_pre", look), *((n, look) for n in names)]):
        model(tokens, attention_mask=torch.ones_like(tokens))
    return all(seen)
