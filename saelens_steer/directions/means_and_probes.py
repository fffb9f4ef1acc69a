"""Directions that need no SAE: what a feature has to compete with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import minimize
from torch import Tensor

from saelens_steer.activations import Activations
from saelens_steer.errors import InputError
from saelens_steer.features import At
from saelens_steer.tensors import Vectors

PENALTY = 0.01
"""L2 on the weights of the probe, whose inputs are centred and scaled to unit mean variance."""


@dataclass(frozen=True)
class Probe:
    """x belongs to the positive side where x · direction > threshold."""

    direction: Float[Tensor, " d_model"]
    """A unit vector, float32, CPU."""
    threshold: float

    def holds(self, x: Float[Tensor, "... d_model"]) -> Tensor:
        """Which vectors lie on the positive side."""
        return x.float() @ self.direction.to(x.device) > self.threshold


def difference_of_means(
    activations: Activations,
    positive: Sequence[str],
    negative: Sequence[str],
    at: At = "assistant_start",
) -> Float[Tensor, " d_model"]:
    """Mean activation of some domains minus that of others, as a unit vector (float32, CPU).

    Source: Marks & Tegmark 2023. Raises InputError where a side has no activation, or both have
    the same mean.
    """
    means = [vectors_of(activations, d, at).double().mean(0) for d in (positive, negative)]
    difference = means[0] - means[1]
    if not bool(difference.norm() > 0):
        raise InputError(f"{', '.join(positive)} and {', '.join(negative)} have the same mean")
    return (difference / difference.norm()).float()


def linear_probe(
    positive: Float[Tensor, "n d_model"], negative: Float[Tensor, "m d_model"]
) -> Probe:
    """Logistic regression between some activations and others.

    Both sides weigh the same, however many activations they have. Deterministic (scipy's L-BFGS).
    Raises InputError where the two sides are the same.
    """
    sides = [positive.double().cpu().numpy(), negative.double().cpu().numpy()]
    x = np.concatenate(sides)
    sign = np.repeat([1.0, -1.0], [len(side) for side in sides])
    each = np.repeat([0.5 / len(side) for side in sides], [len(side) for side in sides])
    mean = x.mean(0)
    spread = float(np.sqrt(x.var(0).mean())) or 1.0
    weights, bias = _logistic((x - mean) / spread, sign, each)
    size = float(np.linalg.norm(weights))
    if size == 0:
        raise InputError("the two sides have the same activations: no probe can tell them apart")
    direction = torch.from_numpy(weights / size).float()
    return Probe(direction, float(mean @ weights / size - bias * spread / size))


def vectors_of(activations: Activations, domains: Sequence[str], at: At) -> Vectors:
    """The activations of some domains at a part of their prompts; InputError where none is kept."""
    index = activations.index
    mask = torch.tensor((index["domain"].isin(domains) & (index["part"] == at)).to_numpy())
    if not bool(mask.any()):
        raise InputError(
            f"no activation of {', '.join(domains)} was kept at {at}: use activations.tokens: all"
        )
    parts, start = [], 0
    for x in activations.chunks():
        parts.append(x[mask[start : start + len(x)]])
        start += len(x)
    return torch.cat(parts)


def _logistic(x: np.ndarray, sign: np.ndarray, each: np.ndarray) -> tuple[np.ndarray, float]:
    """Weights and bias of the penalised regression of sign (±1) on x [n, d]."""

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        margin = sign * (x @ w[:-1] + w[-1])
        pull = -sign * each / (1 + np.exp(np.clip(margin, -500, 500)))
        value = each @ np.logaddexp(0, -margin) + PENALTY / 2 * w[:-1] @ w[:-1]
        return float(value), np.append(x.T @ pull + PENALTY * w[:-1], pull.sum())

    found = minimize(loss, np.zeros(x.shape[1] + 1), jac=True, method="L-BFGS-B").x
    return found[:-1], float(found[-1])
