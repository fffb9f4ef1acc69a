"""How well an SAE reconstructs activations: running sums, and the figures they give."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from sae_lens import SAE
from torch import Tensor
from torch.nn.functional import cosine_similarity

from saelens_steer.sae.codec import decode, encode, rows_at_once
from saelens_steer.tensors import Vectors

DENSE = 0.1
"""A feature is dense if it fires on more than this share of the tokens."""
DENSITY_EDGES = np.arange(-6, 0.01, 0.25)
"""Bin edges of the histogram of firing densities, in log10."""


class FitSums:
    """Running sums for the figures of an SAE's reconstruction, in float64."""

    def __init__(self, sae: SAE[Any]) -> None:
        self.sae = sae
        self.n = 0
        self.dropped = 0
        self.squared_error = 0.0
        self.cosine = self.ratio = self.l1 = self.norm = 0.0
        self.fired: Float[Tensor, " d_sae"] = torch.zeros(sae.cfg.d_sae, dtype=torch.float64)
        self.total: Tensor = torch.zeros((), dtype=torch.float64)
        self.rebuilt_total: Tensor = torch.zeros((), dtype=torch.float64)
        self.squares = self.rebuilt_squares = 0.0

    @torch.no_grad()
    def add(self, vectors: Vectors, dropped: int = 0, target: Vectors | None = None) -> None:
        """Add what the SAE reads, and what it should output if that is something else."""
        self.n += len(vectors)
        self.dropped += dropped
        wanted = vectors if target is None else target
        size = rows_at_once(self.sae)
        pairs = zip(vectors.split(size), wanted.split(size), strict=True)
        for x, y in ((x.to(self.sae.device), y.to(self.sae.device)) for x, y in pairs):
            z = encode(self.sae, x)
            y_hat = decode(self.sae, z, x).float()
            self.squared_error += _sum((y - y_hat).pow(2))
            self.cosine += _sum(cosine_similarity(y, y_hat))
            self.norm += _sum(x.norm(dim=-1))
            self.ratio += _sum(y_hat.norm(dim=-1) / y.norm(dim=-1))
            self.l1 += float(z.abs().sum(dtype=torch.float64))
            self.fired += (z != 0).sum(0).cpu()
            self.total = self.total + y.double().sum(0).cpu()
            self.squares += _sum(y.pow(2))
            self.rebuilt_total = self.rebuilt_total + y_hat.double().sum(0).cpu()
            self.rebuilt_squares += _sum(y_hat.pow(2))

    def figures(self) -> dict[str, Any]:
        """Counts, L0, L1, error, explained variance, and shares of dead and of dense features."""
        density = (self.fired / self.n).numpy()
        return {
            "n_tokens": self.n,
            "sinks_dropped": self.dropped,
            "d_in": self.sae.cfg.d_in,
            "d_sae": self.sae.cfg.d_sae,
            "l0": float(density.sum()),
            "l1": self.l1 / self.n,
            "mse": self.squared_error / self.n,
            "explained_variance": 1 - self.squared_error / self._variance,
            "cosine": self.cosine / self.n,
            "l2_ratio": self.ratio / self.n,
            "dead_share": float((density == 0).mean()),
            "dense_share": float((density > DENSE).mean()),
            "density": density_histogram(density),
        }

    def balance(self) -> dict[str, float]:
        """Whether errors cancel, as they do at the minimum of the squared error.

        mean_norm: the mean ‖x‖. slope: of the regression of x on x̂, both centred; 1 if the scale
        is right. aligned: the share of the variance that this regression explains. bias:
        ‖mean (x − x̂)‖ in units of the standard deviation of x, the root of its total variance; 0
        if b_dec is right.
        """
        mean, rebuilt = self.total / self.n, self.rebuilt_total / self.n
        cross = (self.squares + self.rebuilt_squares - self.squared_error) / 2
        common = cross - self.n * float((mean * rebuilt).sum())
        spread = self.rebuilt_squares - self.n * float(rebuilt.pow(2).sum())
        slope = common / spread if spread > 0 else math.nan
        return {
            "mean_norm": self.norm / self.n,
            "slope": slope,
            "aligned": max(slope, 0.0) * common / self._variance if spread > 0 else 0.0,
            "bias": float((mean - rebuilt).norm()) / math.sqrt(self._variance / self.n),
        }

    @property
    def _variance(self) -> float:
        """The sum of squares around the mean."""
        return self.squares - float(self.total.pow(2).sum()) / self.n


def fit_figures(sae: SAE[Any], x: Vectors, target: Vectors | None = None) -> dict[str, Any]:
    """Explained variance, L0, scale and the other figures of an SAE on activations [n, d_in].

    target: what the SAE's output should be, if not x.
    """
    sums = FitSums(sae)
    sums.add(x.float(), target=None if target is None else target.float())
    return sums.figures() | sums.balance()


def density_histogram(density: np.ndarray) -> dict[str, list[float]]:
    """Histogram of log10 firing density over the features that fire at all."""
    powers = np.log10(density[density > 0]).clip(DENSITY_EDGES[0], DENSITY_EDGES[-1])
    counts, edges = np.histogram(powers, DENSITY_EDGES)
    return {"log10_edges": edges.tolist(), "counts": counts.tolist()}


def _sum(values: Tensor) -> float:
    return float(values.double().sum())
