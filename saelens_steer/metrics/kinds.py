"""The two kinds of metric."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from saelens_steer.tensors import Logits, PerRow


@dataclass(frozen=True)
class LogitMetric:
    """One number per row from next-token logits: `fn(logits, baseline_logits)`."""

    name: str
    fn: Callable[[Logits, Logits], PerRow]


@dataclass(frozen=True)
class TextMetric:
    """Numbers, one for each column, from one completion: `fn(completion, truncated)`."""

    name: str
    columns: tuple[str, ...]
    fn: Callable[[str, bool], dict[str, float]]


Metric = LogitMetric | TextMetric
