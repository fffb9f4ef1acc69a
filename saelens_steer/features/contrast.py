"""Contrast scores: how differently each feature fires on two domains of prompts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from html import escape
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from sae_lens import SAE

from saelens_steer.activations import Activations, At
from saelens_steer.config import CAUSAL, CONTRASTS, ContrastScore, SelectSpec, checked
from saelens_steer.errors import InputError, or_known
from saelens_steer.features.domain_statistics import (
    EXACT,
    PLACES,
    DomainStatistics,
    DomainTokens,
    separation,
)
from saelens_steer.features.scale import Scale, feature_activations
from saelens_steer.sae import check_sae_at, codec, rows_at_once

Pool = Literal["tokens", "max"]
SEPARATES = 0.05
"""The best candidate's AUROC should be at least this far from 0.5."""


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
    """Indexed by feature: mean_difference, auroc, firing_rate_positive/_negative, max_act … With a
    reference, mean_difference and the others compare the positive side with it, and
    negative_mean_difference … the negative side."""
    scale: Scale
    """A_max of every feature and mean ‖x‖ over all cached tokens."""
    reference: str | None = None
    """The domain with which each side was compared; None: with the other side."""
    k: int = 0
    """Candidates that were asked for, per side."""

    def __repr__(self) -> str:
        """The candidates of both sides."""
        about = f"by {self.score} at {PLACES[self.at]}, {len(self.scores):,} live features"
        sides = (f"{s}: {', '.join(map(str, f)) or 'none'}" for s, f in self.candidates.items())
        return "\n".join([f"Selection {about}", *sides, *self.doubts])

    def _repr_html_(self) -> str:
        """The scores of the candidates."""
        chosen = self.scores.loc[self.features]
        return f"<p>{escape(repr(self).splitlines()[0])}</p>{chosen.to_html(border=0)}"

    def by(self, score: ContrastScore, k: int) -> Selection:
        """The same scores, with the top k features of each side by another score.

        With a reference, a feature may be among the best of both sides; it counts for the positive.
        """
        best = _best(self._favour(self.positive, score), k)
        away = self._favour(self.negative, score).drop(best)
        candidates = {self.positive: best, self.negative: _best(away, k)}
        return replace(self, score=score, candidates=candidates, k=k)

    @property
    def doubts(self) -> list[str]:
        """Sentences on sides with fewer than k candidates, or whose candidates hardly differ."""
        found = []
        for side, own in self.candidates.items():
            if len(own) < self.k:
                few = f"only {len(own)} of {self.k}" if own else "none"
                found.append(f"Features that favour {side} by {self.score}: {few}.")
            if own and self.score in CONTRASTS:
                best = float(self._favour(side, "auroc").loc[own].abs().max())
                if best < SEPARATES:
                    found.append(
                        f"The features for {side} hardly separate it: their AUROC is within "
                        f"{best:.2g} of 0.5, which is chance."
                    )
        return found

    def _favour(self, side: str, score: str) -> pd.Series:
        """How much a score of each feature favours a side: above 0 if it does."""
        middle, sign = 0.5 if score == "auroc" else 0.0, 1 if side == self.positive else -1
        if self.reference is not None and side == self.negative:
            sign, score = 1, f"negative_{score}"
        values: Any = self.scores[score]
        return sign * (values - middle)

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
            **({"reference": self.reference} if self.reference else {}),
            "at": self.at,
            "score": self.score,
            "doubts": self.doubts,
            **{f"{side}_candidates": f for side, f in self.candidates.items()},
            "scores": {str(f): row.to_dict() for f, row in chosen.iterrows()},
        }


def _best(towards: pd.Series, k: int) -> list[int]:
    """The k features with the largest positive values, best first."""
    ranked = towards.loc[towards > 0].sort_values(ascending=False, kind="stable")
    return [int(feature) for feature in ranked.index[:k]]


def select_features(
    sae: SAE[Any],
    activations: Activations,
    positive: str,
    negative: str,
    *,
    reference: str | None = None,
    k: int = 10,
    at: At = "assistant_start",
    score: ContrastScore = "mean_difference",
    pool: Pool = "tokens",
) -> Selection:
    """Select the k features that most favour `positive` over `negative`, and k for the reverse.

    Compares each feature's activations on the two domains, at the assistant start, over the whole
    prompts or over the answers. `reference`: a third domain, such as prose, with which each side is
    compared instead, so that no feature of one side is chosen for its silence on the other.
    `score`: mean_difference is the difference of mean activations (in units of z), auroc the
    probability that a positive token activates the feature more than a negative one, and
    firing_difference the difference of firing rates. `pool`: tokens counts every token; max counts
    each prompt once, by the feature's largest activation, which finds features that fire on a
    single word of each text. Candidates fire on at least one domain and favour their side. max_act
    is A_max, the largest activation on any cached token. Activations are encoded once, in chunks;
    if there are too many to rank, auroc comes from binned activations and auroc_error bounds its
    error. Raises InputError for a domain without cached tokens at `at`.
    """
    given = {
        "positive": positive, "negative": negative, "reference": reference,
        "k": k, "at": at, "score": score, "pool": pool,
    }  # fmt: skip
    if score in CAUSAL:
        raise InputError(f"{score} needs the model's predictions: use rank_features for it")
    if score not in CONTRASTS:
        raise InputError(f"unknown score {score!r}; {or_known(str(score), [*CONTRASTS])}")
    k = checked(SelectSpec, given, "select_features").k
    codec.check_positive(sae)
    check_sae_at(sae, activations.d_model, activations.hook_name)
    domains = [positive, negative, *([] if reference is None else [reference])]
    sides = [DomainTokens(activations, domain, at, pool) for domain in domains]
    d_sae = sae.cfg.d_sae
    exact = sum(side.n for side in sides) * d_sae <= EXACT
    statistics = [DomainStatistics(d_sae, exact) for _ in sides]
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
    return Selection(positive, negative, at, score, {}, scores, scale, reference).by(score, k)


def _scores(
    positive: DomainStatistics,
    negative: DomainStatistics,
    reference: DomainStatistics | None = None,
) -> pd.DataFrame:
    """The columns of `Selection.scores`, but max_act, of features that fire on any domain."""
    domains = [positive, negative, *([] if reference is None else [reference])]
    alive = np.flatnonzero(torch.stack([one.fired for one in domains]).sum(0).numpy() > 0)
    rates = {
        f"firing_rate_{name}": one.rate[alive]
        for name, one in zip(("positive", "negative", "reference"), domains, strict=False)
    }
    columns = _contrast(positive, reference or negative, alive) | rates
    if reference is not None:
        own = _contrast(negative, reference, alive)
        columns |= {f"negative_{name}": values for name, values in own.items()}
    return pd.DataFrame(columns, index=pd.Index(alive, name="feature")).astype(float)


def _contrast(
    side: DomainStatistics, rival: DomainStatistics, features: np.ndarray
) -> dict[str, np.ndarray]:
    area, error = separation(side, rival, features)
    return {
        "mean_difference": (side.mean - rival.mean)[features],
        "auroc": area,
        "auroc_error": error,
        "firing_difference": (side.rate - rival.rate)[features],
    }
