"""Contexts in which a feature fires, and silent ones: to name it by, and to test the name on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

import numpy as np
from jaxtyping import Bool
from sae_lens import SAE
from torch import Tensor

from saelens_steer.activations import Activations
from saelens_steer.config import LabelSpec
from saelens_steer.features import (
    Context,
    FeatureActivity,
    TokenOrigins,
    best_rows,
    contexts_at,
    feature_activity,
    shown_tokens,
)
from saelens_steer.files import digest

WINDOW = 12
"""Tokens shown on either side of the one in the middle."""
TRIED = 6
"""Contexts tried for each silent one, once prompts without a firing token run out."""


@dataclass(frozen=True)
class FiringContexts:
    """A feature's contexts in the cache; none for an SAE without an encoder."""

    top: tuple[Context, ...] = ()
    """Its largest activations."""
    firing: tuple[Context, ...] = ()
    """Other contexts, from its largest activations to its smallest."""
    silent: tuple[Context, ...] = ()
    """Contexts in which it fires on no token."""
    rates: Mapping[str, float] = field(default_factory=dict)
    """Domain → share of its tokens on which it fires."""


def firing_of(
    tokenizer: Any,
    sae: SAE[Any],
    activations: Activations,
    features: Sequence[int],
    spec: LabelSpec,
) -> list[FiringContexts]:
    """One pass over the cached tokens, and one over those that are shown."""
    if sae.cfg.metadata.decoder_only:
        return [FiringContexts()] * len(features)
    shown = shown_tokens(tokenizer, activations)
    found = feature_activity(sae, activations, features, shown)
    rows = [_rows(found, shown, column, spec) for column in range(len(features))]
    kinds = [
        contexts_at(tokenizer, sae, activations, found, shown, own, WINDOW)
        for own in zip(*rows, strict=True)
    ]
    rates = [dict(zip(found.origins.domains, own, strict=True)) for own in found.rates.tolist()]
    records = []
    for top, firing, tried, own in zip(*kinds, rates, strict=True):
        silent = [context for context in tried if not any(context.activations)]
        records.append(FiringContexts(top, firing, tuple(silent[: spec.detection]), own))
    return records


def _rows(
    found: FeatureActivity, shown: Bool[Tensor, " n"], column: int, spec: LabelSpec
) -> tuple[list[int], list[int], list[int]]:
    """Rows of the top contexts, of others that fire, and of contexts that may be silent."""
    ranked = best_rows(found, column)
    top, rest = ranked[: spec.contexts], ranked[spec.contexts :]
    n = min(spec.detection, len(rest))
    firing = [rest[i] for i in np.linspace(0, len(rest) - 1, n).round().astype(int)]
    used = {int(found.origins.prompt_of[row]) for row in (*top, *firing)}
    return top, firing, _maybe_silent(found, shown, column, spec.seed, firing, used)


def _maybe_silent(
    found: FeatureActivity,
    shown: Bool[Tensor, " n"],
    column: int,
    seed: int,
    firing: list[int],
    used: set[int],
) -> list[int]:
    """Rows of unused prompts, those without a firing token first, whose context may be silent.

    They are as far into their prompts as the firing ones are, so that position gives nothing away.
    """
    origins = found.origins
    draws = [digest(seed, found.features[column], name) for name in origins.prompts]
    order = sorted({*range(len(draws))} - used, key=lambda prompt: draws[prompt])
    loud = (found.peak[:, column] > 0).tolist()
    quiet = [prompt for prompt in order if not loud[prompt]][: len(firing)]
    others = [prompt for prompt in order if loud[prompt]]
    chosen = quiet + others[: TRIED * (len(firing) - len(quiet))]
    depths = cycle(_depth(origins, shown, row) for row in firing)
    rows = [(_shown_rows(origins, shown, prompt), next(depths)) for prompt in chosen]
    return [int(own[round(depth * (len(own) - 1))]) for own, depth in rows if len(own)]


def _shown_rows(origins: TokenOrigins, shown: Bool[Tensor, " n"], prompt: int) -> Tensor:
    rows = origins.rows_of(prompt)
    return rows[shown[rows]]


def _depth(origins: TokenOrigins, shown: Bool[Tensor, " n"], row: int) -> float:
    """A row's position in its prompt: 0 the first token, 1 the last."""
    rows = _shown_rows(origins, shown, int(origins.prompt_of[row]))
    return int((rows == row).nonzero()) / max(1, len(rows) - 1)


def cached_texts(tokenizer: Any, activations: Activations) -> Iterator[str]:
    """The text of each cached prompt, without special tokens."""
    shown = shown_tokens(tokenizer, activations)
    index = activations.index[shown.numpy()]
    for _, tokens in index.groupby("prompt_id", sort=False)["token"]:
        yield tokenizer.decode(tokens.tolist(), clean_up_tokenization_spaces=False)
