"""Scores of features by what the model makes of them.

direct_logit and attribution say which side a feature is for; output_score and token_confidence
only that it does something, so they rank a shortlist of each side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import pandas as pd
import torch
from jaxtyping import Int
from sae_lens import SAE
from torch import Tensor

from saelens_steer.config import CausalScore, SelectSpec
from saelens_steer.errors import InputError
from saelens_steer.features import Selection
from saelens_steer.metrics import LogitMetric
from saelens_steer.model import direct_logits, reading_direction, resid_gradient
from saelens_steer.steering import feature_directions
from saelens_steer.sweeps import LogitSweep, Measurement, measured_batches
from saelens_steer.tensors import Logits, PerRow

STANDS_FOR = 20
"""A feature stands for so many tokens, those whose logits W_dec[f] raises most (Arad et al. 2025);
the model is as sure as its so many likeliest tokens say (Fu et al. 2025)."""
AT_ONCE = 256
"""Features whose direct logits are held at once."""
PROMPT_BATCH = 8
"""Prompts in one pass with gradients."""
SIDED = ("direct_logit", "attribution")


@dataclass(frozen=True)
class CausalScoring:
    """The prompts that features are tried on: those of selection, up to the assistant start."""

    measurement: Measurement
    sae: SAE[Any]
    positive: str
    negative: str
    _seen: dict[tuple[float, tuple[int, ...]], pd.DataFrame] = field(
        default_factory=dict, init=False, repr=False
    )

    def pushed(self, features: Sequence[int], push: float) -> pd.DataFrame:
        """`pushed_scores`: both of them from one sweep over the features."""
        key = push, tuple(features)
        if key not in self._seen:
            self._seen[key] = pushed_scores(self, features, push)
        return self._seen[key]

    @property
    def metric(self) -> LogitMetric:
        """The first logit metric: the outcome."""
        return self.measurement.logit_metrics[0]

    @cached_property
    def favours(self) -> int:
        """1 where the outcome is larger, unsteered, on the positive side's prompts; else −1.

        Raises InputError where it is the same on both.
        """
        logits = self.measurement.unsteered_pass.baseline
        values = self.metric.of(logits, logits).double().cpu()
        domains = [p.domain for p in self.measurement.prompts]
        positive, negative = (
            float(values[[d == s for d in domains]].mean()) for s in (self.positive, self.negative)
        )
        if not math.isfinite(positive - negative) or positive == negative:
            raise InputError(
                f"{self.metric.name} does not tell {self.positive} from {self.negative}: "
                "name a metric first that does"
            )
        return 1 if positive > negative else -1


def rank_by(
    found: Selection, score: CausalScore, scoring: CausalScoring, spec: SelectSpec, push: float
) -> Selection:
    """The selection ranked anew by a causal score, which its `scores` get as a column.

    `push`: the norm of the pushes of output_score and token_confidence. Raises InputError where the
    score does not fit the first logit metric.
    """
    if score in SIDED:
        values = _sided(found, score, scoring)
        towards = values * scoring.favours
        sides = {found.positive: towards[towards > 0], found.negative: -towards[towards < 0]}
    else:
        short = found.by("mean_difference", spec.shortlist).candidates
        both = list(dict.fromkeys(f for own in short.values() for f in own))
        values = scoring.pushed(both, push)[score]
        sides = {side: values.loc[own] for side, own in short.items()}
    best = {side: _best(own, spec.k) for side, own in sides.items()}
    scores = found.scores.assign(**{score: values.reindex(found.scores.index)})
    return replace(found, score=score, candidates=best, scores=scores)


def _best(values: Any, k: int) -> list[int]:
    ordered = values.sort_values(ascending=False, kind="stable")
    return [int(f) for f in ordered.index[:k]]


def _sided(found: Selection, score: str, scoring: CausalScoring) -> pd.Series:
    features = [int(f) for f in found.scores.index]
    compute = direct_logit if score == "direct_logit" else attribution
    return pd.Series(compute(scoring, features).double().numpy(), index=pd.Index(features))


def direct_logit(scoring: CausalScoring, features: Sequence[int]) -> PerRow:
    """What W_dec[f] adds to the logits of the margin's target, less those of its other tokens.

    Means over both sets, at the final residual, up to the scale of the final norm. Raises
    InputError unless the first logit metric is a margin.
    """
    target, other = margin_sets(scoring.metric)
    read = reading_direction(scoring.measurement.model, target) - reading_direction(
        scoring.measurement.model, other
    )
    rows = scoring.sae.W_dec[list(features)].detach().float().to(read.device)
    return (rows @ read).cpu()


def margin_sets(metric: LogitMetric) -> tuple[Tensor, Tensor]:
    """The tokens of a margin, which direct_logit reads. Raises InputError for another metric."""
    if metric.sets is None:
        raise InputError(
            f"direct_logit reads the tokens of a margin, and {metric.name} is none: "
            "name a margin as the first logit metric"
        )
    return metric.sets


def attribution(scoring: CausalScoring, features: Sequence[int]) -> PerRow:
    """d metric / d α of adding α · W_dec[f] where the sweep steers, mean over the prompts.

    It differentiates the outcome: what a choice by other scores can reach at best, no evidence.
    """
    unsteered_pass, gradients = scoring.measurement.unsteered_pass, []
    tokens, mask = unsteered_pass.padded
    for rows in torch.arange(len(tokens)).split(PROMPT_BATCH):
        of = partial(
            _outcome, scoring.metric, unsteered_pass.baseline[rows.to(unsteered_pass.device)]
        )
        gradient = resid_gradient(
            scoring.measurement.model, tokens[rows], mask[rows], unsteered_pass.hook_name, of
        )
        gradients.append((gradient * unsteered_pass.chosen[rows][..., None]).sum(1))
    mean = torch.cat(gradients).mean(0)
    return (scoring.sae.W_dec[list(features)].detach().float().to(mean.device) @ mean).cpu()


def _outcome(metric: LogitMetric, baseline: Logits, logits: Logits) -> PerRow:
    return metric.of(logits, baseline)


@torch.no_grad()
def pushed_scores(scoring: CausalScoring, features: Sequence[int], push: float) -> pd.DataFrame:
    """output_score and token_confidence of features, means over the prompts, indexed by feature.

    output_score: after a push of this norm, the largest probability among the tokens that the
    feature stands for, times 1 − their best rank / d_vocab (Arad et al. 2025, arXiv 2505.20063).
    token_confidence: how much the push adds to −mean log p of the likeliest tokens (Wang et al.
    2025, arXiv 2510.03659).
    """
    measurement = scoring.measurement
    sweep = LogitSweep(
        unsteered_pass=measurement.unsteered_pass,
        directions=feature_directions(scoring.sae, features, "unit"),
        cells=[(place, push) for place in range(len(features))],
        metrics=(),
        all_logits=True,
    )
    tokens = _stands_for(scoring, features)
    sums = torch.zeros(len(features), 2, dtype=torch.float64)
    for rows in measured_batches(sweep):
        values = _scores_of(
            rows["logits"], measurement.unsteered_pass.baseline[rows["prompt"]], tokens, rows
        )
        sums.index_add_(0, rows["cell"], values)
    means = (sums / len(measurement.prompts)).numpy()
    index = pd.Index([*features], name="feature")
    return pd.DataFrame(means, index=index, columns=["output_score", "token_confidence"])


def _stands_for(scoring: CausalScoring, features: Sequence[int]) -> Int[Tensor, "n token"]:
    """The tokens that each feature stands for."""
    rows = scoring.sae.W_dec[list(features)].detach().split(AT_ONCE)
    n = min(STANDS_FOR, scoring.measurement.model.cfg.d_vocab)
    return torch.cat(
        [direct_logits(scoring.measurement.model, part).topk(n).indices for part in rows]
    )


def _scores_of(
    logits: Logits, baseline: Logits, tokens: Int[Tensor, "n token"], rows: dict[str, Tensor]
) -> Tensor:
    """Both scores of some rows, [row, 2]."""
    log_p = logits.float().log_softmax(-1)
    best = log_p.gather(1, tokens[rows["cell"].to(tokens.device)]).amax(1)
    rank = (log_p > best[:, None]).sum(1)
    output = (1 - rank / log_p.shape[1]) * best.exp()
    sure = _confidence(log_p) - _confidence(baseline.float().log_softmax(-1))
    return torch.stack([output, sure], dim=1).double().cpu()


def _confidence(log_p: Logits) -> PerRow:
    return -log_p.topk(min(STANDS_FOR, log_p.shape[1])).values.mean(1)
