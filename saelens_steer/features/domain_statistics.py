"""A domain's feature activations: which tokens count, their statistics, AUROC of two domains."""

from __future__ import annotations

import numpy as np
import scipy
import torch
from jaxtyping import Float
from torch import Tensor

from saelens_steer.activations import Activations, At
from saelens_steer.errors import InputError

EXACT = 1 << 27
"""Maximum activations of all domains kept for an exact AUROC (512 MiB)."""
COLUMNS, RANKED = 1024, 1 << 23
"""Maximum features and activations ranked at once; ranks need eight times the memory."""
MANTISSA = 4
"""Leading mantissa bits that index a bin, so that each octave has 16 bins."""
SMALLEST, BINS = -16, 32 << MANTISSA
"""Bins cover 2^SMALLEST to 2^16; the first and last also count values beyond."""
PLACES = {
    "assistant_start": "the last prompt token",
    "prompt": "the prompt's tokens",
    "answer": "the answer's tokens",
}
"""Where activations are read → the place in words, which plain text has too."""


class DomainTokens:
    """Picks one domain's feature activations, or the largest of each prompt, from chunks."""

    def __init__(self, activations: Activations, domain: str, at: At, pool: str) -> None:
        self.rows = _tokens_of(activations, domain, at)
        self.prompts = None
        self.n = int(self.rows.sum())
        if pool == "max":
            prompts = activations.index["prompt_id"].to_numpy()[self.rows.numpy()]
            self.prompts = torch.from_numpy(np.cumsum(prompts[1:] != prompts[:-1]))
            self.prompts = torch.cat([self.prompts.new_zeros(1), self.prompts])
            self.n = int(self.prompts[-1]) + 1
        self.seen = 0
        self.open: Tensor | None = None

    def of(self, z: Float[Tensor, "n d_sae"], start: int) -> Float[Tensor, "m d_sae"]:
        """The domain's part of a chunk that starts at row `start`; a prompt may span chunks."""
        own = z[self.rows[start : start + len(z)]]
        if self.prompts is None or not len(own):
            return own
        first, self.seen = self.seen, self.seen + len(own)
        number = self.prompts[first : self.seen]
        low = int(number[0])
        largest = own.new_full((int(number[-1]) - low + 1, own.shape[1]), -torch.inf)
        place = (number - low)[:, None].expand_as(own)
        largest.scatter_reduce_(0, place, own, "amax")
        if self.open is not None:
            if first and self.prompts[first - 1] == low:
                largest[0] = torch.maximum(largest[0], self.open)
            else:
                largest = torch.cat([self.open[None], largest])
        self.open = None
        if self.seen < len(self.prompts):  # the last prompt may continue
            self.open, largest = largest[-1], largest[:-1]
        return largest


def _tokens_of(activations: Activations, domain: str, at: At) -> torch.Tensor:
    """True at the domain's tokens in the part `at`: [n]."""
    domains = activations.index["domain"]
    if domain not in set(domains):
        known = ", ".join(filter(None, sorted(set(domains))))
        these = f"the domains are {known}" if known else "they have none: give Prompt(domain=…)"
        raise InputError(f"no selection prompt has the domain {domain!r}; {these}")
    rows = torch.tensor((domains == domain).to_numpy()) & activations.are_at(at)
    if not rows.any():
        raise InputError(
            f"no activation of domain {domain!r} was kept at {PLACES[at]}: "
            "set activations.tokens to all, and for answers use prompts that have them"
        )
    return rows


class DomainStatistics:
    """Running statistics of one domain's feature activations [n, d_sae]."""

    def __init__(self, d_sae: int, exact: bool) -> None:
        self.n = 0
        self.total = torch.zeros(d_sae, dtype=torch.float64)
        self.fired = torch.zeros(d_sae, dtype=torch.int64)
        self.kept: list[Tensor] = []
        self.counts = None if exact else torch.zeros(d_sae * BINS, dtype=torch.int32)

    def add(self, z: Float[Tensor, "n d_sae"]) -> None:
        """Add a batch of activations."""
        if not len(z):
            return
        self.n += len(z)
        self.total += z.sum(0, dtype=torch.float64)
        self.fired += (z > 0).sum(0)
        if self.counts is None:
            self.kept.append(z)
            return
        rows, features = (z > 0).nonzero(as_tuple=True)
        place = features * BINS + bins(z[rows, features])
        self.counts.index_add_(0, place, torch.ones_like(place, dtype=torch.int32))

    def of(self, features: np.ndarray) -> np.ndarray:
        """The stored activations of some features (only if exact): [n, feature]."""
        return torch.cat([z[:, features] for z in self.kept]).numpy()

    @property
    def mean(self) -> np.ndarray:
        """Mean activation, [d_sae]."""
        return (self.total / self.n).numpy()

    @property
    def rate(self) -> np.ndarray:
        """Firing rate, [d_sae]."""
        return (self.fired.double() / self.n).numpy()

    def shares(self, features: np.ndarray) -> np.ndarray:
        """Share of activations in each bin, preceded by the silent share: [feature, 1 + BINS]."""
        assert self.counts is not None
        counts = self.counts.view(-1, BINS)[torch.from_numpy(features)].numpy()
        silent = self.n - counts.sum(1, keepdims=True)
        return np.concatenate([silent, counts], axis=1) / self.n


def bins(z: Float[Tensor, " n"]) -> Tensor:
    """Bin index of positive activations: their exponent and leading mantissa bits."""
    top = z.view(torch.int32) >> (23 - MANTISSA)
    return (top.long() - ((127 + SMALLEST) << MANTISSA)).clamp(0, BINS - 1)


def separation(
    positive: DomainStatistics, negative: DomainStatistics, features: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """AUROC of each feature and a bound on its error (0 if exact)."""
    if positive.counts is None:
        at_once = max(1, min(COLUMNS, RANKED // max(1, positive.n + negative.n)))
        areas = [
            auroc(positive.of(some), negative.of(some))
            for some in (features[i : i + at_once] for i in range(0, len(features), at_once))
        ]
        return np.concatenate([*areas, []]), np.zeros(len(features))
    parts = [
        binned(positive.shares(some), negative.shares(some))
        for some in np.array_split(features, max(1, -(-len(features) // COLUMNS)))
    ]
    return np.concatenate([a for a, _ in parts]), np.concatenate([e for _, e in parts])


def auroc(positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    """P(positive > negative) + ½ P(equal) for each column: Mann–Whitney U / (n · m)."""
    n, m = len(positive), len(negative)
    ranks = scipy.stats.rankdata(np.concatenate([positive, negative]), axis=0)[:n].sum(0)
    return (ranks - n * (n + 1) / 2) / (n * m)


def binned(positive: np.ndarray, negative: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """AUROC from shares [feature, bin], counting pairs in one bin half, and a bound on its error.

    The true order within a bin is unknown, so the error is at most half the share of such pairs.
    Pairs of silent activations are exact ties.
    """
    same = positive * negative
    below = np.cumsum(negative, axis=1) - negative
    return (positive * below + same / 2).sum(1), same[:, 1:].sum(1) / 2
