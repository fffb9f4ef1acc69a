"""The contexts in which features fire most, token by token."""

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
from saelens_steer.features.activity import FeatureActivity, TokenOrigins
from saelens_steer.features.scale import feature_activations
from saelens_steer.sae import rows_at_once

LEAD = 3
"""Tokens decoded before a window, so that a character cut by its beginning is whole."""


@dataclass(frozen=True)
class Context:
    """The tokens around the one with a prompt's largest activation."""

    prompt_id: str
    domain: str
    peak: int
    """Which of the tokens shown has the largest activation."""
    tokens: tuple[str, ...]
    """They join to the text; a character of several tokens is in the last of them."""
    activations: tuple[float, ...]
    """One for each token, in units of z."""
    positions: tuple[int, ...]
    """Of each in the prompt; tokens that were not cached are left out."""
    more: tuple[bool, bool]
    """Whether the prompt has tokens before and after."""


def shown_tokens(tokenizer: Any, activations: Activations) -> Bool[Tensor, " n"]:
    """False on special tokens, such as an assistant start that is one."""
    special = sorted(special_ids(tokenizer))
    return torch.from_numpy(~np.isin(activations.index["token"].to_numpy(), special))


def top_contexts(
    tokenizer: Any,
    sae: SAE[Any],
    activations: Activations,
    found: FeatureActivity,
    shown: Bool[Tensor, " n"],
    contexts: int,
    window: int,
) -> list[tuple[Context, ...]]:
    """For each feature the prompts with the largest activations, the first of equals first.

    At most `contexts` prompts, and `window` tokens either side; fewer where it fires in fewer.
    """
    chosen = [best_rows(found, column, contexts) for column in range(len(found.features))]
    return contexts_at(tokenizer, sae, activations, found, shown, chosen, window)


def contexts_at(
    tokenizer: Any,
    sae: SAE[Any],
    activations: Activations,
    found: FeatureActivity,
    shown: Bool[Tensor, " n"],
    chosen: Sequence[Sequence[int]],
    window: int,
) -> list[tuple[Context, ...]]:
    """For each feature the contexts around these rows, each the row of a token that is shown."""
    windows = {row: _window(found.origins, shown, row, window) for own in chosen for row in own}
    taken = torch.cat([torch.zeros(0, dtype=torch.int64), *(w.rows for w in windows.values())])
    rows = taken.unique()
    z = _activations_at(sae, activations, rows, found.features)
    texts = {row: _without_activations(tokenizer, activations, w) for row, w in windows.items()}

    def context(row: int, column: int) -> Context:
        own = z[torch.searchsorted(rows, windows[row].rows), column]
        return replace(texts[row], activations=tuple(own.tolist()))

    return [tuple(context(row, column) for row in own) for column, own in enumerate(chosen)]


def best_rows(found: FeatureActivity, column: int, most: int | None = None) -> list[int]:
    """The rows of the largest peaks of one feature, one for each prompt, largest first."""
    peak, row = found.peak[:, column].numpy(), found.row[:, column].numpy()
    order = np.lexsort((row, -peak))[:most]
    return [int(row[prompt]) for prompt in order if row[prompt] >= 0]


@dataclass(frozen=True)
class _Window:
    """The rows around a peak."""

    rows: Int[Tensor, " m"]
    lead: Int[Tensor, " k"]
    """Rows decoded before the window."""
    peak: int
    more: tuple[bool, bool]


def _window(origins: TokenOrigins, shown: Bool[Tensor, " n"], row: int, window: int) -> _Window:
    rows = origins.rows_of(int(origins.prompt_of[row]))
    rows = rows[shown[rows]]
    at = int((rows == row).nonzero())
    start, end = max(0, at - window), min(len(rows), at + window + 1)
    lead = rows[max(0, start - LEAD) : start]
    return _Window(rows[start:end], lead, at - start, (start > 0, end < len(rows)))


def _activations_at(
    sae: SAE[Any], activations: Activations, rows: Int[Tensor, " m"], features: Sequence[int]
) -> Float[Tensor, "m feature"]:
    """Activations of some rows alone, read and encoded piece by piece."""
    wanted = list(features)
    found = [torch.zeros(0, len(wanted))]
    for part in rows.split(rows_at_once(sae)):
        if len(part):
            found.append(feature_activations(sae, activations.take(part))[:, wanted])
    return torch.cat(found)


def _without_activations(tokenizer: Any, activations: Activations, window: _Window) -> Context:
    """The text of a window, decoded once for all features that share it."""
    index = activations.index.iloc[torch.cat([window.lead, window.rows]).numpy()]
    n = len(window.lead)
    tokens = tuple(token_texts(tokenizer, [int(i) for i in index["token"]])[n:])
    positions = tuple(int(p) for p in index["position"][n:])
    row = index.iloc[n + window.peak]
    prompt_id, domain = str(row["prompt_id"]), str(row["domain"])
    return Context(prompt_id, domain, window.peak, tokens, (), positions, window.more)
