"""How TransformerLens processed the weights of a model that the user made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from saelens_steer.model.forward import weight_of_norm
from saelens_steer.model.hooks import check_hook_name
from saelens_steer.model.model_class import Model

NEGLIGIBLE = 1e-4
"""A mean over an axis below this share of the root mean square counts as zero."""


@dataclass(frozen=True)
class Processing:
    """What was done to a model's weights; every field is measured, none is read from a setting."""

    centred_writing_weights: bool
    """Everything written to the residual stream has mean zero over d_model."""
    folded_norms: bool
    """The norms' weights and biases do nothing: they are all 1 and 0."""
    centred_unembed: bool
    """Logits have mean zero over the vocabulary."""
    folded_value_biases: bool
    """Value biases are absent or all 0."""


@torch.no_grad()
def processing_of(model: Model) -> Processing:
    """Measure how TransformerLens has processed a model's weights."""
    check_hook_name(model, "blocks.0.hook_resid_post")
    norms = [getattr(block, name, None) for block in model.blocks for name in ("ln1", "ln2")]
    values = [getattr(getattr(block, "attn", None), "b_V", None) for block in model.blocks]
    return Processing(
        centred_writing_weights=_writes_centred(model),
        folded_norms=all(_plain(norm) for norm in [*norms, getattr(model, "ln_final", None)]),
        centred_unembed=_zero_mean(model.unembed.W_U.float(), -1),
        folded_value_biases=all(bias is None or not bias.any() for bias in values),
    )


def _plain(norm: Any) -> bool:
    """Whether a norm neither scales nor shifts what it has normalised."""
    weight, bias = weight_of_norm(norm), getattr(norm, "b", None)
    return (weight is None or bool((weight == 1).all())) and (bias is None or not bias.any())


def _writes_centred(model: Model) -> bool:
    """Whether the residual stream has mean zero after every layer, on a few tokens."""
    tokens = torch.arange(1, 9, device=model.cfg.device)[None] % model.cfg.d_vocab
    seen: list[bool] = []

    def look(resid: Tensor, hook: Any) -> None:  # noqa: ARG001 (TransformerLens passes hook=)
        seen.append(_zero_mean(resid.float(), -1))

    names = [f"blocks.{layer}.hook_resid_post" for layer in range(model.cfg.n_layers)]
    with model.hooks(fwd_hooks=[("blocks.0.hook_resid_pre", look), *((n, look) for n in names)]):
        model(tokens, attention_mask=torch.ones_like(tokens))
    return all(seen)


def _zero_mean(values: Tensor, axis: int) -> bool:
    """Whether means over an axis are rounding errors, relative to the size of the values."""
    size = values.pow(2).mean(axis).sqrt()
    return bool((values.mean(axis).abs() <= NEGLIGIBLE * size).all())
