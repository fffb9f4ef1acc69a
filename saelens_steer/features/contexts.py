"""The contexts in which features fire most, token by token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from sae_lens import SAE
from torch import Tensor

from saelens_steer.activations import Activations
from saelens_steer.data import special_ids, token_texts
from saelens_steer.features.responses import Places, Responses
from saelens_steer.features.scale import encode
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
    """Put together, the text; a character of several tokens stands on its last one."""
    activations: tuple[float, ...]
    """One for each token, in units of z."""
    positions: tuple[int, ...]
    """Where in the prompt each stands; tokens that were not cached are left out."""
    more: tuple[bool, bool]
    """Whether the prompt goes on before and after."""


def shown_tokens(tokenizer: Any, activations: Activations) -> Bool[Tensor, " n"]:
    """False on special tokens, such as an assistant start that is one."""
    special = sorted(special_ids(tokenizer))
    return torch.from_numpy(~np.isin(activations.index["token"].to_numpy(), special))


def top_contexts(
    tokenizer: Any,
    sae: SAE[Any],
    activations: Activations,
    found: Responses,
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
    found: Responses,
    shown: Bool[Tensor, " n"],
    chosen: Sequence[Sequence[int]],
    window: int,
) -> list[tuple[Context, ...]]:
    """For each feature the contexts around these rows, each the row of a token that is shown."""
    views = {row: _view(found.places, shown, row, window) for own in chosen for row in own}
    taken = torch.cat([torch.zeros(0, dtype=torch.int64), *(v.rows for v in views.values())])
    rows = taken.unique()
    z = _activations_at(sae, activations, rows, found.features)
    table = {row: _Texts(tokenizer, activations, view) for row, view in views.items()}
    return [
        tuple(
            table[row].context(z[torch.searchsorted(rows, views[row].rows), column]) for row in own
        )
        for column, own in enumerate(chosen)
    ]


def best_rows(found: Responses, column: int, most: int | None = None) -> list[int]:
    """The rows of the largest peaks of one feature, one for each prompt, largest first."""
    peak, row = found.peak[:, column].numpy(), found.row[:, column].numpy()
    order = np.lexsort((row, -peak))[:most]
    return [int(row[prompt]) for prompt in order if row[prompt] >= 0]


@dataclass(frozen=True)
class _View:
    """The rows of a window, those decoded before it, and what else is known of it."""

    rows: Int[Tensor, " m"]
    lead: Int[Tensor, " k"]
    peak: int
    more: tuple[bool, bool]


def _view(places: Places, shown: Bool[Tensor, " n"], row: int, window: int) -> _View:
    rows = places.rows_of(int(places.prompt_of[row]))
    rows = rows[shown[rows]]
    at = int((rows == row).nonzero())
    start, end = max(0, at - window), min(len(rows), at + window + 1)
    lead = rows[max(0, start - LEAD) : start]
    return _View(rows[start:end], lead, at - start, (start > 0, end < len(rows)))


def _activations_at(
    sae: SAE[Any], activations: Activations, rows: Int[Tensor, " m"], features: Sequence[int]
) -> Float[Tensor, "m feature"]:
    """Activations of some rows alone, read and encoded piece by piece."""
    wanted = list(features)
    found = [torch.zeros(0, len(wanted))]
    for part in rows.split(rows_at_once(sae)):
        if len(part):
            found.append(encode(sae, activations.take(part))[:, wanted])
    return torch.cat(found)


class _Texts:
    """The texts of a window, decoded once for all features that share it."""

    def __init__(self, tokenizer: Any, activations: Activations, view: _View) -> None:
        index = activations.index.iloc[torch.cat([view.lead, view.rows]).numpy()]
        ids = [int(i) for i in index["token"]]
        n = len(view.lead)
        self.tokens = tuple(token_texts(tokenizer, ids)[n:])
        self.positions = tuple(int(p) for p in index["position"][n:])
        row = index.iloc[n + view.peak]
        self.prompt_id, self.domain = str(row["prompt_id"]), str(row["domain"])
        self.view = view

    def context(self, z: Float[Tensor, " m"]) -> Context:
        """With the activations of one feature."""
        values = tuple(float(v) for v in z)
        view = self.view
        return Context(
            self.prompt_id,
            self.domain,
            view.peak,
            self.tokens,
            values,
            self.positions,
            view.more,
        )
