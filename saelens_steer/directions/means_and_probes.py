"""Directions that need no SAE, as baselines for features: a difference of means, a linear probe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.optimize import minimize
from torch import Tensor

from saelens_steer.activations import Activations
from saelens_steer.errors import InputError
from saelens_steer.tensors import Vectors

PENALTY = 0.01
"""L2 on the weights of the probe, whose inputs are centred and scaled to unit mean variance."""
PART = "assistant_start"


def assistant_start_vectors(activations: Activations, domains: Sequence[str]) -> Vectors:
    """The activations of some domains at the assistant start. Raises InputError if none is kept."""
    index = activations.index
    rows = np.flatnonzero(index["domain"].isin(domains) & (index["part"] == PART))
    if not len(rows):
        raise InputError(
            f"no activation of {', '.join(domains)} was kept at {PART}: use activations.tokens: all"
        )
    return activations.take(torch.from_numpy(rows))


def difference_of_means(
    activations: Activations, positive: Sequence[str], negative: Sequence[str]
) -> Float[Tensor, " d_model"]:
    """Mean assistant-start activation of some domains minus that of others (unit, float32, CPU).

    Source: Marks & Tegmark 2023. Raises InputError if a side has no activation or both have the
    same mean.
    """
    means = [assistant_start_vectors(activations, d).double().mean(0) for d in (positive, negative)]
    difference = means[0] - means[1]
    if not bool(difference.norm() > 0):
        raise InputError(f"{', '.join(positive)} and {', '.join(negative)} have the same mean")
    return (difference / difference.norm()).float()


@dataclass(frozen=True)
class Probe:
    """A linear classifier: x is on the positive side if x · direction > threshold."""

    direction: Float[Tensor, " d_model"]
    """A unit vector, float32, CPU."""
    threshold: float

    def holds(self, x: Float[Tensor, "*rows d_model"]) -> Bool[Tensor, "*rows"]:
        """Whether each vector is on the positive side."""
        return x.float() @ self.direction.to(x.device) > self.threshold


def linear_probe(
    positive: Float[Tensor, "n d_model"], negative: Float[Tensor, "m d_model"]
) -> Probe:
    """Logistic regression between two sets of activations.

    Both sides have the same total weight, whatever their sizes. Deterministic (scipy's L-BFGS).
    Raises InputError if the two sides are the same.
    """
    sides = [positive.double().cpu().numpy(), negative.double().cpu().numpy()]
    sizes = [len(side) for side in sides]
    x = np.concatenate(sides)
    sign = np.repeat([1.0, -1.0], sizes)
    weight = np.repeat([0.5 / n for n in sizes], sizes)
    mean = x.mean(0)
    spread = float(np.sqrt(x.var(0).mean())) or 1.0
    weights, bias = _logistic((x - mean) / spread, sign, weight)
    size = float(np.linalg.norm(weights))
    if size == 0:
        raise InputError("the two sides have the same activations: no probe can tell them apart")
    direction = torch.from_numpy(weights / size).float()
    return Probe(direction, float(mean @ weights / size - bias * spread / size))


def _logistic(x: np.ndarray, sign: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, float]:
    """Weights and bias of the penalised regression of sign (±1) on x [n, d]."""

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        margin = sign * (x @ w[:-1] + w[-1])
        pull = -sign * weight / (1 + np.exp(np.clip(margin, -500, 500)))
        value = weight @ np.logaddexp(0, -margin) + PENALTY / 2 * w[:-1] @ w[:-1]
        return float(value), np.append(x.T @ pull + PENALTY * w[:-1], pull.sum())

    found = minimize(loss, np.zeros(x.shape[1] + 1), jac=True, method="L-BFGS-B").x
    return found[:-1], float(found[-1])
