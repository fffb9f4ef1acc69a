"""One completion, from generated ids to text and what the text metrics say of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from saelens_steer.metrics.kinds import Metric, TextMetric


def read_completion(
    tokenizer: Any, ids: Sequence[int], stops: Sequence[int], metrics: Sequence[Metric]
) -> dict[str, Any]:
    """completion (up to its stop token, special tokens left out), truncated, n_tokens, metrics."""
    end = next((i for i, token in enumerate(ids) if token in stops), None)
    kept, truncated = ids[:end], end is None
    text = tokenizer.decode(kept, skip_special_tokens=True)
    row: dict[str, Any] = {"completion": text, "truncated": truncated, "n_tokens": len(kept)}
    for metric in metrics:
        if isinstance(metric, TextMetric):
            row |= metric.fn(text, truncated)
    return row
