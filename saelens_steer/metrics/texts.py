"""One completion, from generated ids to text and what the text metrics say of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from saelens_steer.metrics.kinds import Metric, TextMetric


def completion_of(tokenizer: Any, ids: Sequence[int], stops: Sequence[int]) -> dict[str, Any]:
    """completion (up to its stop token, special tokens left out), truncated, n_tokens."""
    end = next((i for i, token in enumerate(ids) if token in stops), None)
    kept = ids[:end]
    text = tokenizer.decode(kept, skip_special_tokens=True)
    return {"completion": text, "truncated": end is None, "n_tokens": len(kept)}


def text_values(text: str, truncated: bool, metrics: Sequence[Metric]) -> dict[str, float]:
    """The columns of the text metrics among these."""
    found = [m.fn(text, truncated) for m in metrics if isinstance(m, TextMetric)]
    return {name: value for columns in found for name, value in columns.items()}


def read_completion(
    tokenizer: Any, ids: Sequence[int], stops: Sequence[int], metrics: Sequence[Metric]
) -> dict[str, Any]:
    """completion (up to its stop token, special tokens left out), truncated, n_tokens, metrics."""
    row = completion_of(tokenizer, ids, stops)
    return row | text_values(row["completion"], row["truncated"], metrics)
