"""Metrics of logits and of completions; KL and margins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor

from saelens_steer.tensors import Logits, PerRow


@runtime_checkable
class LogitFunction(Protocol):
    """One number per row. The unsteered logits go by name, so the two cannot be swapped."""

    def __call__(self, logits: Logits, *, baseline: Logits) -> PerRow: ...


@dataclass(frozen=True)
class LogitMetric:
    """A metric of next-token logits."""

    name: str
    fn: LogitFunction
    reads: Int[Tensor, " read"] | None = None
    """The only tokens whose logits `fn` gets, in this order; None for the whole vocabulary."""
    sets: tuple[Int[Tensor, " target"], Int[Tensor, " other"]] | None = None
    """A margin's target and other tokens."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The column that it writes in the result tables: its name."""
        return (self.name,)

    def of(
        self, logits: Logits, *, baseline: Logits, columns: Int[Tensor, " column"] | None = None
    ) -> PerRow:
        """The metric of each row. `columns`: the token ids of the logits, ascending; None: all.

        NaN where it is infinite, and where a logit is NaN or +∞, so that the row says nothing.
        """
        sound = logits.detach().amax(-1).isfinite()
        if self.reads is None:
            rows = self.fn(logits, baseline=baseline)
        else:
            ids = self.reads if columns is None else torch.searchsorted(columns, self.reads)
            ids = ids.to(logits.device)
            rows = self.fn(logits[:, ids], baseline=baseline[:, ids])
        return torch.where(sound & rows.detach().isfinite(), rows, torch.nan)


@dataclass(frozen=True)
class TextMetric:
    """One number per column from a completion: `fn(completion, truncated)`."""

    name: str
    columns: tuple[str, ...]
    fn: Callable[[str, bool], dict[str, float]]
    from_start: bool = False
    """Whether it judges an answer from its beginning, so that prompts must end there."""


Metric = LogitMetric | TextMetric


def kl(logits: Logits, *, baseline: Logits) -> PerRow:
    """KL(baseline ‖ steered) of the next-token distributions, in nats, float32.

    Never negative, and exactly 0 for equal logits. Tokens that the baseline rules out (−inf) add
    nothing.
    """
    log_p = baseline.float().log_softmax(-1)
    log_q = logits.float().log_softmax(-1)
    terms = torch.where(log_p.isneginf(), 0.0, log_p.exp() * (log_p - log_q))
    return terms.sum(-1).clamp(min=0)


KL = LogitMetric("kl", kl)


def logit_margin(
    logits: Logits, target_ids: Sequence[int] | Tensor, other_ids: Sequence[int] | Tensor
) -> PerRow:
    """max(logits[target]) − max(logits[other]) of each row, in float32: positive favours target."""
    return _largest(logits, target_ids) - _largest(logits, other_ids)


def target_log_prob(
    logits: Logits,
    *,
    baseline: Logits,  # noqa: ARG001
    target: Int[Tensor, " target"],
    among: Int[Tensor, " among"] | None,
) -> PerRow:
    """log p(target | among) of each row, in nats, float32; `among` None: the whole vocabulary."""
    exact = logits.float()
    whole = exact if among is None else exact[:, among.to(exact.device)]
    return exact[:, target.to(exact.device)].logsumexp(-1) - whole.logsumexp(-1)


def _largest(logits: Logits, ids: Sequence[int] | Tensor) -> PerRow:
    chosen = torch.as_tensor(ids, dtype=torch.long, device=logits.device)
    return logits.index_select(-1, chosen).amax(-1).float()
