"""The two kinds of metric."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from saelens_steer.tensors import Logits, PerRow


@dataclass(frozen=True)
class LogitMetric:
    """One number per row from next-token logits: `fn(logits, baseline_logits)`."""

    name: str
    fn: Callable[[Logits, Logits], PerRow]
    reads: Int[Tensor, " read"] | None = None
    """The only tokens that `fn` reads, and is given, in this order; None for the vocabulary."""
    sets: tuple[Int[Tensor, " target"], Int[Tensor, " other"]] | None = None
    """Of a margin: the tokens it is between."""

    def of(
        self, logits: Logits, baseline: Logits, columns: Int[Tensor, " column"] | None = None
    ) -> PerRow:
        """The metric of rows whose logits are of some tokens, ascending (None: of all)."""
        if self.reads is None:
            return self.fn(logits, baseline)
        ids = self.reads if columns is None else torch.searchsorted(columns, self.reads)
        ids = ids.to(logits.device)
        return self.fn(logits[:, ids], baseline[:, ids])


@dataclass(frozen=True)
class TextMetric:
    """Numbers, one for each column, from one completion: `fn(completion, truncated)`."""

    name: str
    columns: tuple[str, ...]
    fn: Callable[[str, bool], dict[str, float]]


Metric = LogitMetric | TextMetric
