"""How good an SAE is, on text it was not trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from jaxtyping import Float
from sae_lens import SAE
from torch import Tensor

from saelens_steer.activations import keep_ordinary, without_sinks
from saelens_steer.errors import InputError
from saelens_steer.model import run_to_hook
from saelens_steer.tensors import Mask, Resid, Tokens, Vectors


@torch.no_grad()
def sae_quality(
    model: Any, sae: SAE[Any], hook_name: str, texts: Iterable[str], context_size: int = 128
) -> dict[str, float]:
    """Reconstruction and model-preservation figures of an SAE over packed contexts of `texts`.

    l0, explained_variance, mse (per vector), dead_share (features that never fire here), and the
    cross-entropy in nats per token with the residual intact (ce_loss), replaced by the SAE's
    output (ce_loss_sae) and by zeros (ce_loss_zero); loss_recovered is
    (ce_zero − ce_sae) / (ce_zero − ce_intact). Special tokens and attention sinks (norm over 10 ×
    the median) are left alone everywhere. Raises InputError if the texts fill no context.
    """
    sums, n_contexts = _Sums(sae), 0
    losses = torch.zeros(3, dtype=torch.float64)
    for tokens in _contexts(model, texts, context_size):
        resid = run_to_hook(model, tokens, torch.ones_like(tokens, dtype=torch.bool), hook_name)
        kept = _ordinary(resid, tokens, model.tokenizer)
        sums.add(resid[kept].float())
        spliced: list[Callable[[Tensor], Tensor] | None] = [None, sae, torch.zeros_like]
        batch = [_loss(model, tokens, hook_name, kept, replace) for replace in spliced]
        losses += torch.tensor(batch, dtype=torch.float64) * len(tokens)
        n_contexts += len(tokens)
    if n_contexts == 0:
        raise InputError("too little held-out text to measure the SAE: give a larger corpus")
    intact, with_sae, zeroed = (losses / n_contexts).tolist()
    return sums.figures() | {
        "ce_loss": intact,
        "ce_loss_sae": with_sae,
        "ce_loss_zero": zeroed,
        "loss_recovered": (zeroed - with_sae) / (zeroed - intact),
    }


def _ordinary(resid: Resid, tokens: Tokens, tokenizer: Any) -> Mask:
    kept = keep_ordinary(tokens, tokenizer).to(resid.device)
    kept[kept.clone()] = without_sinks(resid[kept], 10.0)
    return kept


def _contexts(model: Any, texts: Iterable[str], size: int, batch: int = 16) -> Iterator[Tokens]:
    """The texts' tokens end to end, cut into [batch, size]; a rest that fills no row is dropped."""
    ids = [i for text in texts for i in model.tokenizer.encode(text, add_special_tokens=False)]
    rows = torch.tensor(ids[: len(ids) // size * size]).reshape(-1, size)
    yield from rows.to(model.cfg.device).split(batch) if len(rows) else ()


def _loss(
    model: Any,
    tokens: Tokens,
    hook_name: str,
    kept: Mask,
    replace: Callable[[Tensor], Tensor] | None,
) -> float:
    """Mean next-token cross-entropy with the kept positions of the hook replaced."""

    def hook(resid: Resid, hook: Any) -> Resid:  # noqa: ARG001 (TransformerLens passes hook=)
        assert replace is not None
        return torch.where(kept[..., None], replace(resid).to(resid.dtype), resid)

    hooks = [] if replace is None else [(hook_name, hook)]
    with model.hooks(fwd_hooks=hooks):
        return float(model(tokens, return_type="loss"))


class _Sums:
    """Running sums for the reconstruction figures, in float64."""

    def __init__(self, sae: SAE[Any]) -> None:
        self.sae = sae
        self.n = 0
        self.squared_error = 0.0
        self.active = 0
        self.fired = torch.zeros(sae.cfg.d_sae, dtype=torch.bool)
        self.total: Float[Tensor, " d_model"] = torch.zeros(sae.cfg.d_in, dtype=torch.float64)
        self.squares = 0.0

    def add(self, vectors: Vectors) -> None:
        z = self.sae.encode(vectors)
        error = vectors - self.sae.decode(z)
        self.n += len(vectors)
        self.squared_error += float(error.double().pow(2).sum())
        self.active += int((z > 0).sum())
        self.fired |= (z > 0).any(0).cpu()
        self.total += vectors.double().sum(0).cpu()
        self.squares += float(vectors.double().pow(2).sum())

    def figures(self) -> dict[str, float]:
        spread = self.squares - float(self.total.pow(2).sum()) / self.n
        return {
            "n_tokens": self.n,
            "l0": self.active / self.n,
            "mse": self.squared_error / self.n,
            "explained_variance": 1 - self.squared_error / spread,
            "dead_share": float((~self.fired).float().mean()),
        }
