"""The contexts in which features fire most strongly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from sae_lens import SAE
from torch import Tensor

from saelens_steer.activations import Activations
from saelens_steer.data import special_ids, token_texts
from saelens_steer.features.activity import FeatureActivity
from saelens_steer.features.scale import feature_activations
from saelens_steer.sae import rows_at_once

LEAD = 3
"""Tokens decoded before a window, so that a character split at its start is complete."""


@dataclass(frozen=True)
class Context:
    """Tokens around a prompt's largest activation of a feature."""

    prompt_id: str
    domain: str
    peak: int
    """Index into `tokens` of the largest activation."""
    tokens: tuple[str, ...]
    """Their concatenation is the text; a character split over tokens is in the last of them."""
    activations: tuple[float, ...]
    """z at each token."""
    positions: tuple[int, ...]
    """Position of each token in the prompt; tokens that were not cached are missing."""
    more: tuple[bool, bool]
    """Whether the prompt has shown tokens before and after the window."""


def shown_tokens(tokenizer: Any, activations: Activations) -> Bool[Tensor, " n"]:
    """False on special tokens, including an assistant start that is one."""
    special = sorted(special_ids(tokenizer))
    return torch.from_numpy(~np.isin(activations.index["token"].to_numpy(), special))


def contexts_at(
    tokenizer: Any,
    sae: SAE[Any],
    activations: Activations,
    found: FeatureActivity,
    chosen: Sequence[Sequence[int]],
    window: int,
) -> list[tuple[Context, ...]]:
    """For each feature, the shown tokens around its chosen rows, up to `window` on either side."""
    windows = {row: _window(found, row, window) for own in chosen for row in own}
    none = torch.zeros(0, dtype=torch.int64)
    rows = torch.cat([none, *(w.rows for w in windows.values())]).unique()
    z = _activations_at(sae, activations, rows, found.features)
    texts = {row: _without_activations(tokenizer, activations, w) for row, w in windows.items()}

    def context(row: int, column: int) -> Context:
        own = z[torch.searchsorted(rows, windows[row].rows), column]
        return replace(texts[row], activations=tuple(own.tolist()))

    return [tuple(context(row, column) for row in own) for column, own in enumerate(chosen)]


def best_rows(found: FeatureActivity, column: int) -> list[int]:
    """Rows of a feature's peaks, one per prompt, largest first; ties in row order."""
    peak, row = found.peak[:, column].numpy(), found.row[:, column].numpy()
    return [int(row[prompt]) for prompt in np.lexsort((row, -peak)) if row[prompt] >= 0]


@dataclass(frozen=True)
class _Window:
    """Rows around a peak."""

    rows: Int[Tensor, " m"]
    lead: Int[Tensor, " k"]
    """Rows decoded before the window."""
    peak: int
    more: tuple[bool, bool]


def _window(found: FeatureActivity, row: int, window: int) -> _Window:
    rows = found.shown_rows(int(found.origins.prompt_of[row]))
    at = int((rows == row).nonzero())
    start, end = max(0, at - window), min(len(rows), at + window + 1)
    lead = rows[max(0, start - LEAD) : start]
    return _Window(rows[start:end], lead, at - start, (start > 0, end < len(rows)))


def _activations_at(
    sae: SAE[Any], activations: Activations, rows: Int[Tensor, " m"], features: Sequence[int]
) -> Float[Tensor, "m feature"]:
    """Feature activations of the given rows, read and encoded in chunks."""
    wanted = list(features)
    found = [torch.zeros(0, len(wanted))]
    for part in rows.split(rows_at_once(sae)):
        if len(part):
            found.append(feature_activations(sae, activations.take(part))[:, wanted])
    return torch.cat(found)


def _without_activations(tokenizer: Any, activations: Activations, window: _Window) -> Context:
    """A window's context without activations, shared by the features that peak there."""
    index = activations.index.iloc[torch.cat([window.lead, window.rows]).numpy()]
    n = len(window.lead)
    tokens = tuple(token_texts(tokenizer, [int(i) for i in index["token"]])[n:])
    positions = tuple(int(p) for p in index["position"][n:])
    row = index.iloc[n + window.peak]
    prompt_id, domain = str(row["prompt_id"]), str(row["domain"])
    return Context(prompt_id, domain, window.peak, tokens, (), positions, window.more)
