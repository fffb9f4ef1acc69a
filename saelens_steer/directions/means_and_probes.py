"""Baseline directions without an SAE: differences of means and linear probes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.optimize import minimize
from torch import Tensor

from saelens_steer.activations import Activations, At
from saelens_steer.errors import InputError
from saelens_steer.features import PLACES
from saelens_steer.tensors import Vectors

PENALTY = 0.01
"""L2 penalty on the probe's weights; its inputs are centred and scaled to unit mean variance."""


def difference_of_means(
    activations: Activations,
    positive: str | Sequence[str],
    negative: str | Sequence[str],
    at: At = "assistant_start",
) -> Float[Tensor, " d_model"]:
    """Mean activation of the positive minus the negative domains (unit, float32, CPU).

    `at`: which tokens to use. Source: Marks & Tegmark 2023. Raises InputError if a domain has no
    activation there or is on both sides, or both have the same mean.
    """
    sides = _sides(activations, positive, negative, at)
    difference = sides[0].double().mean(0) - sides[1].double().mean(0)
    if not bool(difference.norm() > 0):
        raise InputError(
            f"{_named(positive)} and {_named(negative)} have the same mean activation: if they "
            'differ only in their answers, cache with tokens="answer" and give at="answer"'
        )
    return (difference / difference.norm()).float()


@dataclass(frozen=True)
class Probe:
    """A linear classifier: x is on the positive side if x · direction + bias > 0."""

    direction: Float[Tensor, " d_model"]
    """A unit vector, float32, CPU."""
    bias: float

    def __repr__(self) -> str:
        return f"Probe: a unit vector of {len(self.direction)}, bias {self.bias:.4g}"

    def score(self, x: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows"]:
        """The signed distance of each vector from the boundary, float32."""
        return x.float() @ self.direction.to(x.device) + self.bias

    def holds(self, x: Float[Tensor, "*rows d_model"]) -> Bool[Tensor, "*rows"]:
        """Whether each vector is on the positive side."""
        return self.score(x) > 0


def linear_probe(
    activations: Activations,
    positive: str | Sequence[str],
    negative: str | Sequence[str],
    at: At = "assistant_start",
) -> Probe:
    """Fit a logistic regression between the activations of the positive and the negative domains.

    Both sides have the same total weight. `at`: which tokens to use. Raises InputError if a domain
    has no activation there or is on both sides.
    """
    return probe_between(*_sides(activations, positive, negative, at))


def probe_between(
    positive: Float[Tensor, "n d_model"], negative: Float[Tensor, "m d_model"]
) -> Probe:
    """Logistic regression between two sets of vectors.

    Both sides have the same total weight. Deterministic (scipy's L-BFGS). Raises InputError if the
    two sides are equal.
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
    return Probe(direction, -float(mean @ weights / size - bias * spread / size))


def vectors_of(
    activations: Activations, domains: str | Sequence[str], at: At = "assistant_start"
) -> Vectors:
    """Cached activations of these domains at `at`. Raises InputError if a domain has none."""
    index, named = activations.index, _listed(domains)
    there = activations.are_at(at).numpy()
    missing = sorted(set(named) - set(index["domain"][there]))
    if not any(index["domain"]):
        raise InputError(
            "the cached prompts have no domains: cache prompts such as "
            'ss.Prompt(text="…", domain="code")'
        )
    if missing or not named:
        raise InputError(
            f"no activation of {_named(missing) or 'no domain'} at {PLACES[at]} is cached: the "
            f"cache has the domains {', '.join(sorted(set(index['domain'])))} and the parts "
            f"{', '.join(sorted(set(index['part'])))}"
        )
    rows = np.flatnonzero(index["domain"].isin(named).to_numpy() & there)
    return activations.take(torch.from_numpy(rows))


def _sides(
    activations: Activations, positive: str | Sequence[str], negative: str | Sequence[str], at: At
) -> list[Vectors]:
    """The activations of the two sides. Raises InputError for a domain of both."""
    if both := set(_listed(positive)) & set(_listed(negative)):
        raise InputError(f"{min(both)} is both positive and negative: leave it out of one")
    return [vectors_of(activations, side, at) for side in (positive, negative)]


def _listed(domains: str | Sequence[str]) -> list[str]:
    return [domains] if isinstance(domains, str) else list(domains)


def _named(domains: str | Sequence[str]) -> str:
    return domains if isinstance(domains, str) else ", ".join(domains)


def _logistic(x: np.ndarray, sign: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, float]:
    """Weights and bias of the penalised logistic regression of sign (±1) on x [n, d]."""

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        margin = sign * (x @ w[:-1] + w[-1])
        pull = -sign * weight / (1 + np.exp(np.clip(margin, -500, 500)))
        value = weight @ np.logaddexp(0, -margin) + PENALTY / 2 * w[:-1] @ w[:-1]
        return float(value), np.append(x.T @ pull + PENALTY * w[:-1], pull.sum())

    found = minimize(loss, np.zeros(x.shape[1] + 1), jac=True, method="L-BFGS-B").x
    return found[:-1], float(found[-1])
