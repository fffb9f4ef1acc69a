"""Contrast scores: how differently each feature fires on two domains of prompts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from html import escape
from typing import Any, Literal

import numpy as np
import pandas as pd
import scipy
import torch
from jaxtyping import Float
from sae_lens import SAE
from torch import Tensor

from saelens_steer.activations import Activations, At
from saelens_steer.config import CAUSAL, CONTRASTS, ContrastScore, SelectSpec, checked
from saelens_steer.errors import InputError, or_known
from saelens_steer.features.scale import Scale, feature_activations
from saelens_steer.sae import check_sae_at, codec, rows_at_once

EXACT = 1 << 27
"""Maximum activations of both domains kept for an exact AUROC (512 MiB)."""
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
Pool = Literal["tokens", "max"]


@dataclass(frozen=True)
class Selection:
    """Candidates for both sides, best first, and the scores of every live feature."""

    positive: str
    negative: str
    at: At
    score: str
    candidates: dict[str, list[int]]
    """Domain → up to k feature indices; only live features whose score favours the domain."""
    scores: pd.DataFrame
    """Indexed by feature: mean_difference, auroc, firing_rate_positive/_negative, max_act …"""
    scale: Scale
    """A_max of every feature and mean ‖x‖ over all cached tokens."""

    def __repr__(self) -> str:
        """The candidates of both sides."""
        about = f"by {self.score} at {PLACES[self.at]}, {len(self.scores):,} live features"
        sides = (f"{s}: {', '.join(map(str, f)) or 'none'}" for s, f in self.candidates.items())
        return "\n".join([f"Selection {about}", *sides])

    def _repr_html_(self) -> str:
        """The scores of the candidates."""
        chosen = self.scores.loc[self.features]
        return f"<p>{escape(repr(self).splitlines()[0])}</p>{chosen.to_html(border=0)}"

    def by(self, score: ContrastScore, k: int) -> Selection:
        """The same scores, with the top k features of each side by another score."""
        towards = self.scores[score] - (0.5 if score == "auroc" else 0.0)
        candidates = {}
        for side, values in ((self.positive, towards), (self.negative, -towards)):
            ranked = values.loc[values > 0].sort_values(ascending=False, kind="stable")
            candidates[side] = [int(f) for f in ranked.index[:k]]
        return replace(self, score=score, candidates=candidates)

    @property
    def features(self) -> list[int]:
        """All candidates, the positive side first."""
        return [f for side in (self.positive, self.negative) for f in self.candidates[side]]

    def to_json(self, hook_name: str, sae: dict[str, Any]) -> dict[str, Any]:
        """The content of features.json."""
        chosen = self.scores.loc[self.features]
        return {
            "hook_name": hook_name,
            "sae": sae,
            "positive": self.positive,
            "negative": self.negative,
            "at": self.at,
            "score": self.score,
            **{f"{side}_candidates": f for side, f in self.candidates.items()},
            "scores": {str(f): row.to_dict() for f, row in chosen.iterrows()},
        }


def select_features(
    sae: SAE[Any],
    activations: Activations,
    positive: str,
    negative: str,
    *,
    k: int = 10,
    at: At = "assistant_start",
    score: ContrastScore = "mean_difference",
    pool: Pool = "tokens",
) -> Selection:
    """Select the k features that most favour `positive` over `negative`, and k for the reverse.

    Compares each feature's activations on the two domains, at the assistant start, over the whole
    prompts or over the answers. `score`: mean_difference is the difference of mean activations (in
    units of z), auroc the probability that a positive token activates the feature more than a
    negative one, and firing_difference the difference of firing rates. `pool`: tokens counts every
    token; max counts each prompt once, by the feature's largest activation, which finds features
    that fire on a single word of each text. Candidates fire on at least one domain and favour
    their side. max_act is A_max, the largest activation on any cached token. Activations are
    encoded once, in chunks; if there are too many to rank, auroc comes from binned activations and
    auroc_error bounds its error. Raises InputError for a domain without cached tokens at `at`.
    """
    given = {
        "positive": positive, "negative": negative, "k": k, "at": at, "score": score, "pool": pool,
    }  # fmt: skip
    if score in CAUSAL:
        raise InputError(f"{score} needs the model's predictions: use rank_features for it")
    if score not in CONTRASTS:
        raise InputError(f"unknown score {score!r}; {or_known(str(score), [*CONTRASTS])}")
    k = checked(SelectSpec, given, "select_features").k
    codec.check_positive(sae)
    check_sae_at(sae, activations.d_model, activations.hook_name)
    sides = [_DomainTokens(activations, domain, at, pool) for domain in (positive, negative)]
    d_sae = sae.cfg.d_sae
    exact = sum(side.n for side in sides) * d_sae <= EXACT
    statistics = DomainStatistics(d_sae, exact), DomainStatistics(d_sae, exact)
    highest, norms, start = torch.zeros(d_sae), 0.0, 0
    for x in activations.chunks(rows_at_once(sae)):
        z = feature_activations(sae, x)
        highest = torch.maximum(highest, z.amax(0))
        norms += float(x.norm(dim=-1).double().sum())
        for side, found in zip(sides, statistics, strict=True):
            found.add(side.of(z, start))
        start += len(x)
    scores = _scores(*statistics)
    scores["max_act"] = highest.numpy()[scores.index].astype(float)
    scale = Scale(dict(enumerate(highest.tolist())), norms / len(activations))
    return Selection(positive, negative, at, score, {}, scores, scale).by(score, k)


class _DomainTokens:
    """Picks one domain's feature activations, or the largest of each prompt, from chunks."""

    def __init__(self, activations: Activations, domain: str, at: At, pool: Pool) -> None:
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


def _scores(positive: DomainStatistics, negative: DomainStatistics) -> pd.DataFrame:
    alive = np.flatnonzero((positive.fired + negative.fired).numpy() > 0)
    area, error = separation(positive, negative, alive)
    return pd.DataFrame(
        {
            "mean_difference": (positive.mean - negative.mean)[alive],
            "auroc": area,
            "auroc_error": error,
            "firing_rate_positive": positive.rate[alive],
            "firing_rate_negative": negative.rate[alive],
            "firing_difference": (positive.rate - negative.rate)[alive],
        },
        index=pd.Index(alive, name="feature"),
    ).astype(float)


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
