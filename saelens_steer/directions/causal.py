"""Causal scores: rank features by how they change the model's predictions.

direct_logit and attribution are signed: they tell which side a feature is for. output_score and
token_confidence only measure the size of an effect, so they rerank a shortlist of each side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import pandas as pd
import torch
from jaxtyping import Int
from sae_lens import SAE
from torch import Tensor

from saelens_steer.config import CausalScore, SelectSpec, check_margin
from saelens_steer.errors import InputError
from saelens_steer.features import Selection
from saelens_steer.metrics import LogitMetric
from saelens_steer.model import direct_logits, reading_direction, resid_gradient, writes_to_stream
from saelens_steer.steering import feature_directions
from saelens_steer.sweeps import LogitSweep, Measurement, measured_batches
from saelens_steer.tensors import Logits, PerRow

TOP_TOKENS = 20
"""Tokens that represent a feature: those whose logits W_dec[f] promotes most (Arad et al. 2025).
Also the number of most likely tokens in token_confidence (Wang et al. 2025)."""
UNEMBED_BATCH = 256
"""Features whose direct logits are held in memory together."""
PROMPT_BATCH = 8
"""Prompts per pass with gradients."""
SIGNED = ("direct_logit", "attribution")
READ_LOGITS = ("direct_logit", "output_score", "token_confidence")
"""Scores computed with `direct_logits` of decoder rows."""


@dataclass(frozen=True)
class CausalScoring:
    """Inputs of causal scores: the selection prompts up to the assistant start, and the SAE."""

    measurement: Measurement
    sae: SAE[Any]
    positive: str
    negative: str
    _seen: dict[tuple[float, tuple[int, ...]], pd.DataFrame] = field(
        default_factory=dict, init=False, repr=False
    )

    def pushed(self, features: Sequence[int], push: float) -> pd.DataFrame:
        """`pushed_scores`, cached so that both scores cost one sweep."""
        key = push, tuple(features)
        if key not in self._seen:
            self._seen[key] = pushed_scores(self, features, push)
        return self._seen[key]

    @cached_property
    def outcome_sign(self) -> int:
        """1 if the unsteered outcome is larger on the positive side's prompts, −1 if smaller.

        Raises InputError if both are equal.
        """
        logits = self.measurement.unsteered_pass.baseline
        metric = self.measurement.outcome
        values = metric.of(logits, baseline=logits).double().cpu()
        domains = [p.domain for p in self.measurement.prompts]
        positive, negative = (
            float(values[[d == s for d in domains]].mean()) for s in (self.positive, self.negative)
        )
        if not math.isfinite(positive - negative) or positive == negative:
            raise InputError(
                f"{metric.name} does not separate {self.positive} from {self.negative}: "
                "make the first logit metric one that does"
            )
        return 1 if positive > negative else -1


def rank_by(
    found: Selection, score: CausalScore, scoring: CausalScoring, spec: SelectSpec, push: float
) -> Selection:
    """Rerank a selection by a causal score, which is added to its `scores`.

    `push`: the norm of the pushes of output_score and token_confidence. Raises InputError if the
    score does not apply to the first logit metric.
    """
    sides: dict[str, Any]
    if score in SIGNED:
        features = [int(f) for f in found.scores.index]
        compute = direct_logit if score == "direct_logit" else attribution
        values = pd.Series(compute(scoring, features).double().numpy(), index=pd.Index(features))
        towards = values * scoring.outcome_sign
        sides = {found.positive: towards[towards > 0], found.negative: -towards[towards < 0]}
    else:
        short = found.by("mean_difference", spec.shortlist).candidates
        both = list(dict.fromkeys(f for side in short.values() for f in side))
        values = scoring.pushed(both, push)[score]
        sides = {side: values.loc[features] for side, features in short.items()}
    best = {
        side: [int(f) for f in scored.sort_values(ascending=False, kind="stable").index[: spec.k]]
        for side, scored in sides.items()
    }
    scores = found.scores.assign(**{score: values.reindex(found.scores.index)})
    return replace(found, score=score, candidates=best, scores=scores, k=spec.k)


def check_causal(score: str, hook_name: str) -> None:
    """Raise InputError if a score needs decoder rows that write to the stream, and these do not."""
    if score in READ_LOGITS and not writes_to_stream(hook_name):
        raise InputError(
            f"{score} reads the logits that a decoder row writes, but {hook_name} does not write "
            "to the residual stream: use attribution, or a contrast score such as auroc"
        )


def direct_logit(scoring: CausalScoring, features: Sequence[int]) -> PerRow:
    """Mean logit that W_dec[f] adds to the margin's target tokens minus its other tokens.

    Read at the final residual, up to the scale of the final norm. Raises InputError unless the
    first logit metric is a margin.
    """
    model = scoring.measurement.model
    target, other = margin_sets(scoring.measurement.outcome)
    read = reading_direction(model, target) - reading_direction(model, other)
    return (_decoder_rows(scoring, features).to(read.device) @ read).cpu()


def margin_sets(metric: LogitMetric) -> tuple[Tensor, Tensor]:
    """The target and other tokens of a margin. Raises InputError for any other metric."""
    check_margin(metric.name, metric.sets is not None)
    assert metric.sets is not None
    return metric.sets


def attribution(scoring: CausalScoring, features: Sequence[int]) -> PerRow:
    """d outcome / d α of adding α · W_dec[f] where the sweep steers, averaged over prompts.

    It differentiates the outcome itself, so it is an upper bound for other scores, not evidence.
    """
    measurement, gradients = scoring.measurement, []
    unsteered, outcome = measurement.unsteered_pass, measurement.outcome
    tokens, mask = unsteered.padded
    for rows in torch.arange(len(tokens)).split(PROMPT_BATCH):
        baseline = unsteered.baseline[rows.to(unsteered.device)]
        gradient = resid_gradient(
            measurement.model,
            tokens[rows],
            mask[rows],
            unsteered.hook_name,
            lambda logits, baseline=baseline: outcome.of(logits, baseline=baseline),
        )
        gradients.append((gradient * unsteered.chosen[rows][..., None]).sum(1))
    mean = torch.cat(gradients).mean(0)
    return (_decoder_rows(scoring, features).to(mean.device) @ mean).cpu()


def _decoder_rows(scoring: CausalScoring, features: Sequence[int]) -> Tensor:
    return scoring.sae.W_dec[list(features)].detach().float()


@torch.no_grad()
def pushed_scores(scoring: CausalScoring, features: Sequence[int], push: float) -> pd.DataFrame:
    """output_score and token_confidence by feature, averaged over the prompts.

    output_score: after a push of norm `push`, the largest probability among the feature's
    TOP_TOKENS, times 1 − their best rank / d_vocab (Arad et al. 2025, arXiv 2505.20063).
    token_confidence: by how much the push changes −mean log p over the most likely tokens (Wang et
    al. 2025, arXiv 2510.03659).
    """
    measurement = scoring.measurement
    sweep = LogitSweep(
        unsteered_pass=measurement.unsteered_pass,
        directions=feature_directions(scoring.sae, features, "unit"),
        cells=[(place, push) for place in range(len(features))],
        metrics=(),
        all_logits=True,
    )
    n_tokens = min(TOP_TOKENS, measurement.model.cfg.d_vocab)
    rows_of_features = scoring.sae.W_dec[list(features)].detach().split(UNEMBED_BATCH)
    tokens = torch.cat(
        [direct_logits(measurement.model, w).topk(n_tokens).indices for w in rows_of_features]
    )
    sums = torch.zeros(len(features), 2, dtype=torch.float64)
    for rows in measured_batches(sweep):
        baseline = measurement.unsteered_pass.baseline[rows["prompt"]]
        raised = tokens[rows["cell"].to(tokens.device)]
        sums.index_add_(0, rows["cell"], _pushed_scores(rows["logits"], baseline, raised))
    means = (sums / len(measurement.prompts)).numpy()
    index = pd.Index([*features], name="feature")
    return pd.DataFrame(means, index=index, columns=["output_score", "token_confidence"])


def _pushed_scores(logits: Logits, baseline: Logits, tokens: Int[Tensor, "row token"]) -> Tensor:
    """Both scores of each row, [row, 2], float64 on the CPU."""
    log_p = logits.float().log_softmax(-1)
    best = log_p.gather(1, tokens).amax(1)
    rank = (log_p > best[:, None]).sum(1)
    output = (1 - rank / log_p.shape[1]) * best.exp()
    gain = _confidence(log_p) - _confidence(baseline.float().log_softmax(-1))
    return torch.stack([output, gain], dim=1).double().cpu()


def _confidence(log_p: Logits) -> PerRow:
    return -log_p.topk(min(TOP_TOKENS, log_p.shape[1])).values.mean(1)
