"""Which features stand for a domain: contrast between two sets of prompts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from sae_lens import SAE
from torch import Tensor

from saelens_steer.activations import Activations
from saelens_steer.config import ContrastScore
from saelens_steer.errors import InputError
from saelens_steer.features import tally
from saelens_steer.features.size import Scale, encode
from saelens_steer.features.tally import Tally, separation
from saelens_steer.sae import check_sae_at, codec, rows_at_once

At = Literal["assistant_start", "answer"]
Pool = Literal["tokens", "max"]


@dataclass(frozen=True)
class Selection:
    """Candidates of both sides, best first, and the scores of every feature that fires."""

    positive: str
    negative: str
    at: At
    score: str
    candidates: dict[str, list[int]]
    """Domain → feature indices; fewer than k where fewer live features point that way."""
    scores: pd.DataFrame
    """Indexed by feature: mean_difference, auroc, firing_rate_positive/_negative, max_act …"""
    scale: Scale
    """A_max of every feature, and mean ‖x‖, over all cached tokens."""

    def by(self, score: ContrastScore, k: int) -> Selection:
        """The same scores, and the first k features of each side by another of them."""
        towards = self.scores[score] - (0.5 if score == "auroc" else 0.0)
        best = {self.positive: _top(towards, k), self.negative: _top(-towards, k)}
        return replace(self, score=score, candidates=best)

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
            **{f"{side}_candidates": found for side, found in self.candidates.items()},
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
    """The k features that most favour `positive` over `negative`, and the k of the reverse.

    Each feature's activation on the tokens of one domain is compared with the other's, at the
    assistant start or over the answers. mean_difference: difference of mean activations (units of
    z); auroc: probability that a positive token activates it more than a negative one;
    firing_difference: difference of firing rates. `pool`: tokens counts every token; max counts
    every prompt once, with the feature's largest activation over its tokens, which finds a feature
    that fires on one word of each text. A feature that fires on neither is dead here and never
    chosen, nor is one whose score does not favour the side. max_act is A_max, the largest
    activation on any of the cached tokens. The activations are encoded once, piece by piece; where
    there are too many to rank, auroc is that of binned activations, and auroc_error the most it
    can be wrong by. Raises InputError for an unknown domain, or when no token of a domain was kept.
    """
    codec.check_encoder(sae)
    check_sae_at(sae, activations.d_model, activations.hook_name)
    if positive == negative:
        raise InputError(f"positive and negative are both {positive!r}: name two domains")
    sides = [_Side(activations, domain, at, pool) for domain in (positive, negative)]
    d_sae = sae.cfg.d_sae
    exact = sum(side.n for side in sides) * d_sae <= tally.EXACT
    tallies = Tally(d_sae, exact), Tally(d_sae, exact)
    highest, norms, start = torch.zeros(d_sae), 0.0, 0
    for x in activations.chunks(rows_at_once(sae)):
        z = encode(sae, x)
        highest = torch.maximum(highest, z.amax(0))
        norms += float(x.norm(dim=-1).double().sum())
        for side, found in zip(sides, tallies, strict=True):
            found.add(side.of(z, start))
        start += len(x)
    scores = _scores(*tallies)
    scores["max_act"] = highest.numpy()[scores.index].astype(float)
    scale = Scale(dict(enumerate(highest.tolist())), norms / len(activations))
    return Selection(positive, negative, at, score, {}, scores, scale).by(score, k)


def _top(values: Any, k: int) -> list[int]:
    favourable = values.loc[values > 0].sort_values(ascending=False, kind="stable")
    return [int(f) for f in favourable.index[:k]]


class _Side:
    """Which tokens are a domain's, and what counts as one: a token, or a prompt's largest."""

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
        """What counts of the activations of all tokens from `start` on."""
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
        if self.seen < len(self.prompts):  # the last prompt may go on
            self.open, largest = largest[-1], largest[:-1]
        return largest


def _tokens_of(activations: Activations, domain: str, at: At) -> torch.Tensor:
    """True at the domain's tokens of that part: [n]."""
    index = activations.index
    if domain not in set(index["domain"]):
        known = ", ".join(sorted(set(index["domain"])))
        raise InputError(f"no selection prompt has the domain {domain!r}; the domains are {known}")
    rows = (index["domain"] == domain) & (index["part"] == at)
    if not rows.to_numpy().any():
        raise InputError(
            f"no activation of domain {domain!r} was kept at {at}: "
            "use activations.tokens: all and prompts with answers"
        )
    return torch.tensor(rows.to_numpy())


def _scores(positive: Tally, negative: Tally) -> pd.DataFrame:
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
            "max_act": torch.maximum(positive.highest, negative.highest).numpy()[alive],
        },
        index=pd.Index(alive, name="feature"),
    ).astype(float)
