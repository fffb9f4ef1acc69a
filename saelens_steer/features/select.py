"""Which features stand for a domain: contrast between two sets of prompts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from sae_lens import SAE
from scipy.stats import rankdata
from torch import Tensor

from saelens_steer.activations import Activations
from saelens_steer.errors import InputError
from saelens_steer.features.size import max_activations
from saelens_steer.sae import check_sae_at, codec
from saelens_steer.tensors import Vectors

At = Literal["assistant_start", "answer"]
Pool = Literal["tokens", "max"]
Score = Literal["mean_difference", "auroc", "firing_difference"]
COLUMNS = 1024
"""Features ranked at once: ranks take eight times the memory of what they rank."""
CHUNK = 4096
"""Tokens encoded at once."""


@dataclass(frozen=True)
class Selection:
    """Candidates of both sides, best first, and the scores of every feature that fires."""

    positive: str
    negative: str
    at: At
    score: Score
    candidates: dict[str, list[int]]
    """Domain → feature indices; fewer than k where fewer live features point that way."""
    scores: pd.DataFrame
    """Indexed by feature: mean_difference, auroc, firing_rate_positive/_negative, max_act …"""

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
    score: Score = "mean_difference",
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
    activation on any of the cached tokens. Raises InputError for an unknown domain, or when no
    token of a domain was kept.
    """
    codec.check_encoder(sae)
    check_sae_at(sae, activations.vectors.shape[1], activations.hook_name)
    if positive == negative:
        raise InputError(f"positive and negative are both {positive!r}: name two domains")
    z_pos, z_neg = (_activity(sae, activations, side, at, pool) for side in (positive, negative))
    scores = _scores(z_pos, z_neg)
    highest = max_activations(sae, activations.vectors).numpy()
    scores["max_act"] = highest[scores.index].astype(float)
    towards = scores[score] - (0.5 if score == "auroc" else 0.0)
    best = {positive: towards, negative: -towards}
    candidates = {side: _top(values, k) for side, values in best.items()}
    return Selection(positive, negative, at, score, candidates, scores)


def _top(values: pd.Series, k: int) -> list[int]:
    favourable = values.loc[values > 0].sort_values(ascending=False, kind="stable")
    return [int(f) for f in favourable.index[:k]]


def _activity(
    sae: SAE[Any], activations: Activations, domain: str, at: At, pool: Pool
) -> np.ndarray:
    """z of a domain's tokens, or the largest of each prompt's: [n, d_sae]."""
    chosen = _tokens_of(activations, domain, at)
    z = encode(sae, activations.vectors[chosen]).numpy()
    if pool == "tokens":
        return z
    prompts = activations.index["prompt_id"].to_numpy()[chosen.numpy()]
    return np.stack([z[prompts == prompt].max(0) for prompt in dict.fromkeys(prompts)])


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


@torch.no_grad()
def encode(sae: SAE[Any], vectors: Vectors) -> Float[Tensor, "n d_sae"]:
    """Feature activations z of each vector, float32 on the CPU, computed in chunks."""
    return torch.cat([codec.encode(sae, v).float().cpu() for v in vectors.split(CHUNK)])


def feature_scores(
    sae: SAE[Any], positive: Float[Tensor, "n d_model"], negative: Float[Tensor, "m d_model"]
) -> pd.DataFrame:
    """Every score of every feature that fires on either set; indexed by feature."""
    return _scores(encode(sae, positive).numpy(), encode(sae, negative).numpy())


def _scores(z_pos: np.ndarray, z_neg: np.ndarray) -> pd.DataFrame:
    alive = np.flatnonzero((z_pos > 0).any(0) | (z_neg > 0).any(0))
    z_pos, z_neg = z_pos[:, alive], z_neg[:, alive]
    fires_pos, fires_neg = (z_pos > 0).mean(0), (z_neg > 0).mean(0)
    return pd.DataFrame(
        {
            "mean_difference": z_pos.mean(0) - z_neg.mean(0),
            "auroc": auroc(z_pos, z_neg),
            "firing_rate_positive": fires_pos,
            "firing_rate_negative": fires_neg,
            "firing_difference": fires_pos - fires_neg,
            "max_act": np.maximum(z_pos.max(0), z_neg.max(0)),
        },
        index=pd.Index(alive, name="feature"),
    ).astype(float)


def auroc(positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    """P(positive > negative) + ½ P(equal) for each column (Mann and Whitney's U over n·m)."""
    n, m = len(positive), len(negative)
    both = np.concatenate([positive, negative])
    chunks = (both[:, i : i + COLUMNS] for i in range(0, both.shape[1], COLUMNS))
    ranks = [rankdata(chunk, axis=0)[:n].sum(0) for chunk in chunks]
    return (np.concatenate([*ranks, []]) - n * (n + 1) / 2) / (n * m)
