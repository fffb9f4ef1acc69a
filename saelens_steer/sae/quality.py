"""How good an SAE is, on text it was not trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float
from sae_lens import SAE
from torch import Tensor
from torch.nn.functional import cross_entropy

from saelens_steer.activations import keep_ordinary, without_sinks
from saelens_steer.errors import InputError
from saelens_steer.model import run_to_hook, unembed
from saelens_steer.sae.codec import check_encoder, decode, encode
from saelens_steer.sae.load import check_sae_at
from saelens_steer.tensors import Mask, Resid, Tokens, Vectors

BATCH = 16
"""Contexts run at once."""
ROWS = 1024
"""Positions unembedded at once."""


@torch.no_grad()
def sae_quality(
    model: Any,
    sae: SAE[Any],
    hook_name: str,
    texts: Iterable[str],
    context_size: int = 128,
    max_norm: float | None = 10.0,
) -> dict[str, int | float]:
    """Reconstruction and model-preservation figures of an SAE over packed contexts of `texts`.

    l0, explained_variance, mse (per vector), dead_share (features that never fire here), and the
    cross-entropy in nats per token with the residual intact (ce_loss), replaced by the SAE's
    output (ce_loss_sae) and by zeros (ce_loss_zero); loss_recovered is
    (ce_zero − ce_sae) / (ce_zero − ce_intact). Special tokens and attention sinks (norm over
    `max_norm` × the median; sinks_dropped) are left alone everywhere. Contexts begin with BOS where
    the model's texts do. Raises InputError if the texts fill no context.
    """
    check_encoder(sae)
    check_sae_at(sae, model.cfg.d_model, hook_name)
    sums, losses = _Sums(sae), torch.zeros(3, dtype=torch.float64)
    contexts = packed_contexts(model, texts, context_size)
    for tokens in contexts.to(model.cfg.device).split(BATCH):
        resid = run_to_hook(model, tokens, torch.ones_like(tokens, dtype=torch.bool), hook_name)
        ordinary = keep_ordinary(tokens, model.tokenizer)
        kept = _without_sinks(resid, ordinary, max_norm)
        sums.add(resid[kept].float(), dropped=int((ordinary & ~kept).sum()))
        spliced: list[Callable[[Tensor], Tensor] | None] = [None, _through(sae), torch.zeros_like]
        batch = [_loss(model, tokens, hook_name, kept, replace) for replace in spliced]
        losses += torch.tensor(batch, dtype=torch.float64) * len(tokens)
    intact, with_sae, zeroed = (losses / len(contexts)).tolist()
    return sums.figures() | {
        "ce_loss": intact,
        "ce_loss_sae": with_sae,
        "ce_loss_zero": zeroed,
        "loss_recovered": (zeroed - with_sae) / (zeroed - intact),
    }


def packed_contexts(model: Any, texts: Iterable[str], context_size: int) -> Tokens:
    """The texts' tokens end to end, cut into rows of context_size; an unfilled row is dropped.

    Rows begin with BOS where the model's texts do. Raises InputError if no row is filled.
    """
    tokenizer = model.tokenizer
    start = [tokenizer.bos_token_id] if model.cfg.default_prepend_bos else []
    size = context_size - len(start)
    ids = [i for text in texts for i in tokenizer.encode(text, add_special_tokens=False)]
    rows = [start + ids[i : i + size] for i in range(0, len(ids) - size + 1, size)]
    if not rows:
        raise InputError(
            f"the texts have {len(ids)} tokens, which fill no context of {context_size}: "
            "give a larger corpus or a smaller context_size"
        )
    return torch.tensor(rows)


def _without_sinks(resid: Resid, ordinary: Mask, max_norm: float | None) -> Mask:
    kept = ordinary.clone()
    kept[ordinary] = without_sinks(resid[ordinary], max_norm)
    return kept


def _through(sae: SAE[Any]) -> Callable[[Tensor], Tensor]:
    """The SAE as a function of residuals of any dtype and on any device."""
    return lambda resid: decode(sae, encode(sae, resid), resid).to(resid)


def _loss(
    model: Any,
    tokens: Tokens,
    hook_name: str,
    kept: Mask,
    replace: Callable[[Tensor], Tensor] | None,
) -> float:
    """Mean next-token cross-entropy, in float32, with the kept positions of the hook replaced."""

    def hook(resid: Resid, hook: Any) -> Resid:  # noqa: ARG001 (TransformerLens passes hook=)
        assert replace is not None
        return torch.where(kept[..., None], replace(resid), resid)

    hooks = [] if replace is None else [(hook_name, hook)]
    last = f"blocks.{model.cfg.n_layers - 1}.hook_resid_post"
    with model.hooks(fwd_hooks=hooks):
        final = run_to_hook(model, tokens, torch.ones_like(tokens, dtype=torch.bool), last)
    before, after = final[:, :-1].flatten(0, 1).split(ROWS), tokens[:, 1:].flatten().split(ROWS)
    pairs = zip(before, after, strict=True)
    losses = [cross_entropy(unembed(model, x), y, reduction="none") for x, y in pairs]
    return float(torch.cat(losses).mean())


class _Sums:
    """Running sums for the reconstruction figures, in float64."""

    def __init__(self, sae: SAE[Any]) -> None:
        self.sae = sae
        self.n = 0
        self.dropped = 0
        self.squared_error = 0.0
        self.active = 0
        self.fired = torch.zeros(sae.cfg.d_sae, dtype=torch.bool)
        self.total: Float[Tensor, " d_model"] = torch.zeros(sae.cfg.d_in, dtype=torch.float64)
        self.squares = 0.0

    def add(self, vectors: Vectors, dropped: int) -> None:
        vectors = vectors.to(self.sae.device)
        z = encode(self.sae, vectors)
        error = vectors - decode(self.sae, z, vectors)
        self.n += len(vectors)
        self.dropped += dropped
        self.squared_error += float(error.double().pow(2).sum())
        self.active += int((z != 0).sum())
        self.fired |= (z != 0).any(0).cpu()
        self.total += vectors.double().sum(0).cpu()
        self.squares += float(vectors.double().pow(2).sum())

    def figures(self) -> dict[str, int | float]:
        spread = self.squares - float(self.total.pow(2).sum()) / self.n
        return {
            "n_tokens": self.n,
            "sinks_dropped": self.dropped,
            "l0": self.active / self.n,
            "mse": self.squared_error / self.n,
            "explained_variance": 1 - self.squared_error / spread,
            "dead_share": float((~self.fired).float().mean()),
        }
