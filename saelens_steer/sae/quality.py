"""How good an SAE is, on text it was not trained on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from sae_lens import SAE
from torch import Tensor
from torch.nn.functional import cosine_similarity

from saelens_steer.activations import keep_ordinary, without_sinks
from saelens_steer.errors import InputError
from saelens_steer.model import run_to_hook
from saelens_steer.sae.codec import check_encoder, decode, encode, rows_at_once
from saelens_steer.sae.load import check_sae_at
from saelens_steer.sae.preservation import Preservation
from saelens_steer.tensors import Mask, Resid, Tokens, Vectors

BATCH = 16
"""Contexts run at once."""
DENSE = 0.1
"""A feature is dense where it fires on a larger share of the tokens than this."""
DENSITY_EDGES = np.arange(-6, 0.01, 0.25)
"""Of the histogram of firing densities, in powers of ten."""


@torch.no_grad()
def sae_quality(
    model: Any,
    sae: SAE[Any],
    hook_name: str,
    texts: Iterable[str],
    context_size: int = 128,
    max_norm: float | None = 10.0,
) -> dict[str, Any]:
    """Reconstruction, sparsity and model-preservation figures over packed contexts of `texts`.

    l0, l1, explained_variance, mse (per vector), cosine, l2_ratio (‖x̂‖ / ‖x‖), dead_share (features
    that never fire here), dense_share (that fire on over a tenth of the tokens), density (histogram
    of log10 of the firing rates of the others); the cross-entropy in nats per token with the
    residual intact (ce_loss), replaced by the SAE's output (ce_loss_sae) and by zeros
    (ce_loss_zero), loss_recovered = (ce_zero − ce_sae) / (ce_zero − ce_intact), and likewise the KL
    from the intact model. With max_norm None they equal those of SAELens's evals. Special tokens
    are left alone, and so are attention sinks (norm over `max_norm` × the median; sinks_dropped),
    which no SAE is trained on. Contexts begin with BOS where the model's texts do. Raises
    InputError if the texts fill no context.
    """
    check_encoder(sae)
    check_sae_at(sae, model.cfg.d_model, hook_name)
    sums, predictions = _Sums(sae), Preservation(model, sae, hook_name)
    contexts = packed_contexts(model, texts, context_size)
    for tokens in contexts.to(model.cfg.device).split(BATCH):
        resid = run_to_hook(model, tokens, torch.ones_like(tokens, dtype=torch.bool), hook_name)
        ordinary = keep_ordinary(tokens, model.tokenizer)
        kept = _without_sinks(resid, ordinary, max_norm)
        sums.add(resid[kept].float(), dropped=int((ordinary & ~kept).sum()))
        predictions.add(tokens, ordinary, kept)
    return sums.figures() | predictions.figures()


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


class _Sums:
    """Running sums for the reconstruction figures, in float64."""

    def __init__(self, sae: SAE[Any]) -> None:
        self.sae = sae
        self.n = 0
        self.dropped = 0
        self.squared_error = 0.0
        self.cosine = self.ratio = self.size = 0.0
        self.fired: Float[Tensor, " d_sae"] = torch.zeros(sae.cfg.d_sae, dtype=torch.float64)
        self.total: Float[Tensor, " d_model"] = torch.zeros(sae.cfg.d_in, dtype=torch.float64)
        self.squares = 0.0

    def add(self, vectors: Vectors, dropped: int) -> None:
        self.n += len(vectors)
        self.dropped += dropped
        for part in vectors.to(self.sae.device).split(rows_at_once(self.sae)):
            self._add(part)

    def _add(self, vectors: Vectors) -> None:
        z = encode(self.sae, vectors)
        rebuilt = decode(self.sae, z, vectors).float()
        self.squared_error += _sum((vectors - rebuilt).pow(2))
        self.cosine += _sum(cosine_similarity(vectors, rebuilt))
        self.ratio += _sum(rebuilt.norm(dim=-1) / vectors.norm(dim=-1))
        self.size += float(z.abs().sum(dtype=torch.float64))
        self.fired += (z != 0).sum(0).cpu()
        self.total += vectors.double().sum(0).cpu()
        self.squares += _sum(vectors.pow(2))

    def figures(self) -> dict[str, Any]:
        spread = self.squares - float(self.total.pow(2).sum()) / self.n
        density = (self.fired / self.n).numpy()
        return {
            "n_tokens": self.n,
            "sinks_dropped": self.dropped,
            "d_in": self.sae.cfg.d_in,
            "d_sae": self.sae.cfg.d_sae,
            "l0": float(density.sum()),
            "l1": self.size / self.n,
            "mse": self.squared_error / self.n,
            "explained_variance": 1 - self.squared_error / spread,
            "cosine": self.cosine / self.n,
            "l2_ratio": self.ratio / self.n,
            "dead_share": float((density == 0).mean()),
            "dense_share": float((density > DENSE).mean()),
            "density": density_histogram(density),
        }


def density_histogram(density: np.ndarray) -> dict[str, list[float]]:
    """How many features fire how often: counts between powers of ten, of those that ever fire."""
    powers = np.log10(density[density > 0]).clip(DENSITY_EDGES[0], DENSITY_EDGES[-1])
    counts, edges = np.histogram(powers, DENSITY_EDGES)
    return {"log10_edges": edges.tolist(), "counts": counts.tolist()}


def _sum(values: Tensor) -> float:
    return float(values.double().sum())
