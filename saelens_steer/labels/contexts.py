"""Contexts in which a feature fires or is silent, to name it from and to test the name on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

import numpy as np
from sae_lens import SAE

from saelens_steer.activations import Activations
from saelens_steer.config import LabelSpec
from saelens_steer.features import (
    Context,
    FeatureActivity,
    best_rows,
    contexts_at,
    feature_activity,
    shown_tokens,
)
from saelens_steer.files import digest
from saelens_steer.sae import counts_firing

WINDOW = 12
"""Tokens of a context on either side of its peak."""
TRIES = 6
"""Contexts tried per silent one needed, once prompts without a firing token run out."""


@dataclass(frozen=True)
class FiringContexts:
    """A feature's contexts in the cache; empty for an SAE without an encoder."""

    top: tuple[Context, ...] = ()
    """Its largest activations, to name it from."""
    firing: tuple[Context, ...] = ()
    """Other contexts in which it fires, spread from large activations to small ones."""
    silent: tuple[Context, ...] = ()
    """Contexts without any token on which it fires."""
    rates: Mapping[str, float] = field(default_factory=dict)
    """Domain → share of its tokens on which it fires."""


def firing_contexts(
    tokenizer: Any,
    sae: SAE[Any],
    activations: Activations,
    features: Sequence[int],
    spec: LabelSpec,
) -> list[FiringContexts]:
    """Each feature's contexts, in two passes: all cached tokens, then those of the contexts."""
    if not counts_firing(sae):
        return [FiringContexts()] * len(features)
    found = feature_activity(sae, activations, features, shown_tokens(tokenizer, activations))
    rows = [_rows(found, column, spec) for column in range(len(features))]
    kinds = [
        contexts_at(tokenizer, sae, activations, found, own, WINDOW)
        for own in zip(*rows, strict=True)
    ]
    contexts = []
    for top, firing, tried, rates in zip(*kinds, found.rates.tolist(), strict=True):
        silent = [context for context in tried if not any(context.activations)]
        by_domain = dict(zip(found.origins.domains, rates, strict=True))
        contexts.append(FiringContexts(top, firing, tuple(silent[: spec.detection]), by_domain))
    return contexts


def _rows(
    found: FeatureActivity, column: int, spec: LabelSpec
) -> tuple[list[int], list[int], list[int]]:
    """Rows of the top contexts, of other firing ones, and of candidates for silent ones."""
    ranked = best_rows(found, column)
    top, rest = ranked[: spec.contexts], ranked[spec.contexts :]
    n = min(spec.detection, len(rest))
    firing = [rest[i] for i in np.linspace(0, len(rest) - 1, n).round().astype(int)]
    used = {int(found.origins.prompt_of[row]) for row in (*top, *firing)}
    return top, firing, _maybe_silent(found, column, spec.seed, firing, used)


def _maybe_silent(
    found: FeatureActivity, column: int, seed: int, firing: list[int], used: set[int]
) -> list[int]:
    """Rows of unused prompts whose context may be silent; prompts without a firing token first.

    They lie as far into their prompts as the firing rows, so that position gives nothing away.
    """
    draws = [digest(seed, found.features[column], name) for name in found.origins.prompts]
    order = sorted({*range(len(draws))} - used, key=lambda prompt: draws[prompt])
    fires = (found.peak[:, column] > 0).tolist()
    silent = [prompt for prompt in order if not fires[prompt]][: len(firing)]
    others = [prompt for prompt in order if fires[prompt]]
    chosen = silent + others[: TRIES * (len(firing) - len(silent))]
    depths = cycle(_depth(found, row) for row in firing)
    rows = [(found.shown_rows(prompt), next(depths)) for prompt in chosen]
    return [int(own[round(depth * (len(own) - 1))]) for own, depth in rows if len(own)]


def _depth(found: FeatureActivity, row: int) -> float:
    """A row's relative position in its prompt: 0 for the first shown token, 1 for the last."""
    rows = found.shown_rows(int(found.origins.prompt_of[row]))
    return int((rows == row).nonzero()) / max(1, len(rows) - 1)


def cached_texts(tokenizer: Any, activations: Activations) -> Iterator[str]:
    """The text of each cached prompt, without special tokens."""
    shown = shown_tokens(tokenizer, activations)
    index = activations.index[shown.numpy()]
    for _, tokens in index.groupby("prompt_id", sort=False)["token"]:
        yield tokenizer.decode(tokens.tolist(), clean_up_tokenization_spaces=False)
