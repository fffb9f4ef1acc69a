"""Metrics of the next-token distribution."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from saelens_steer.tensors import Logits, PerRow


def margin(
    logits: Logits, target_ids: Sequence[int] | Tensor, other_ids: Sequence[int] | Tensor
) -> PerRow:
    """max(logits[target]) − max(logits[other]) of each row, in float32: positive favours target."""
    return _best(logits, target_ids) - _best(logits, other_ids)


def kl(baseline_logits: Logits, logits: Logits) -> PerRow:
    """KL(baseline ‖ steered) of the next-token distributions, in nats, float32.

    Never negative, and exactly 0 for equal logits. Tokens that the baseline rules out (−inf) add
    nothing.
    """
    log_p = baseline_logits.float().log_softmax(-1)
    log_q = logits.float().log_softmax(-1)
    terms = torch.where(log_p.isneginf(), 0.0, log_p.exp() * (log_p - log_q))
    return terms.sum(-1).clamp(min=0)


def _best(logits: Logits, ids: Sequence[int] | Tensor) -> PerRow:
    chosen = torch.as_tensor(ids, dtype=torch.long, device=logits.device)
    return logits.index_select(-1, chosen).amax(-1).float()
