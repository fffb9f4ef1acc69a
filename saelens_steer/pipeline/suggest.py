"""Strengths at which a direction changes texts without breaking them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, takewhile
from typing import Any, Literal

import numpy as np
import pandas as pd
from sae_lens import SAE

from saelens_steer.activations import Activations, cache_activations
from saelens_steer.config import CompareEditsSettings, checked, template_of
from saelens_steer.data import Encoded, PromptLike, encode_prompts, start_of
from saelens_steer.directions import text_losses
from saelens_steer.errors import InputError
from saelens_steer.features import measured_scale
from saelens_steer.metrics import completion_of, distinct_words
from saelens_steer.model import UNDEFINED, hook_width, stop_token_ids
from saelens_steer.model.model_class import Model, tokenizer_of
from saelens_steer.no_tokenizer import check_tokenizer
from saelens_steer.pipeline.arguments import (
    check_activations,
    given_prompts,
    hook_of,
    hook_without_sae,
)
from saelens_steer.progress import Note, progress
from saelens_steer.steering import Variant, add
from saelens_steer.sweeps import ORIGINAL, VariantTexts, check_comparable
from saelens_steer.tensors import Direction, VectorLike, as_direction

STRENGTHS = tuple(2 ** (step / 2) for step in range(-12, 9))
"""‖αv‖ in multiples of mean ‖x‖: from 1/64 to 16, each √2 times the one before."""
SIGNS = (1, -1)
TokenIds = tuple[int, ...]
NATS = 1.0
"""A rise of the median loss per token by more than this counts as broken text."""


@dataclass(frozen=True)
class SuggestedAlpha:
    """α for each sign: the geometric mean of low and high, or None if low is not below high.

    low is the smallest strength tried at which at least half of the texts differ from the unsteered
    ones, high the largest before they break, or the largest tried, 16 × mean ‖x‖, if they never do.
    """

    positive: float | None
    negative: float | None
    table: pd.DataFrame
    """One row per strength tried: alpha, rel_norm (‖αv‖ / mean ‖x‖), share_changed, loss (median,
    nats per token, of the unsteered model), distinct_words (median share, 0 for an empty text),
    changed, broken."""

    def __repr__(self) -> str:
        found = {"positive": self.positive, "negative": self.negative}
        parts = [f"{name}={'none' if a is None else f'{a:.4g}'}" for name, a in found.items()]
        return f"SuggestedAlpha({', '.join(parts)}, {len(self.table)} strengths tried)"


def suggest_alpha(
    model: Model,
    direction: VectorLike,
    prompts: Sequence[PromptLike],
    *,
    hook_name: str | None = None,
    sae: SAE[Any] | None = None,
    positions: Literal["all", "prompt", "generated", "last"] = "all",
    exclude_special_tokens: bool = False,
    max_norm: float | int | Literal["auto"] | None = "auto",
    activations: Activations | None = None,
    max_new_tokens: int = 32,
    batch_size: int = 16,
    chat: bool | None = None,
    system: str | None = None,
    add_generation_prompt: bool = True,
    chat_template_kwargs: Mapping[str, object] | None = None,
) -> SuggestedAlpha:
    """Suggest strengths for `ss.add(direction, alpha)`, from greedy texts on a few prompts.

    Tries strengths upward on a logarithmic grid, for each sign, until texts break: the median
    negative log-likelihood per token under the unsteered model rises by more than a nat, or the
    median share of distinct words halves (loops lower the perplexity). `sae`: the direction's SAE,
    which decides how plain text begins, and the hook if `hook_name` is None. `activations` at the
    hook give mean ‖x‖; by default those of the prompts are cached. TemplateSpec documents `chat`
    and the options after it. Raises InputError for invalid arguments, before any forward pass, and
    if half of the unsteered texts are empty.
    """
    given = {
        "positions": positions, "exclude_special_tokens": exclude_special_tokens,
        "max_norm": max_norm, "max_new_tokens": max_new_tokens, "batch_size": batch_size,
    }  # fmt: skip
    spec = checked(CompareEditsSettings, given, "suggest_alpha")
    if sae is None:
        hook_name = hook_without_sae(model, hook_name, direction)
    else:
        hook_name = hook_of(model, sae, hook_name)
    check_tokenizer(tokenizer_of(model), "suggest_alpha, which judges texts by their words,")
    vector = as_direction("direction", direction, hook_width(model, hook_name))
    reading = (chat, system, add_generation_prompt, chat_template_kwargs)
    template, listed = template_of("suggest_alpha", *reading), given_prompts(model, prompts)
    encoded = encode_prompts(tokenizer_of(model), listed, template, sae)
    check_comparable(model, encoded, spec, 2 * len(STRENGTHS))
    start = start_of(tokenizer_of(model), encoded, sae)
    if activations is None:
        how: dict[str, Any] = {**template.options, "special_tokens": sae}
        activations = cache_activations(model, listed, hook_name=hook_name, **how)
    check_activations(activations, model, hook_name, start)
    unit = measured_scale(activations).mean_norm / float(vector.norm())
    writing = _Writing(model, encoded, spec)
    with progress("texts of suggest_alpha", 2 * len(STRENGTHS) * len(listed)) as note:
        (original,) = writing.texts([ORIGINAL])
        if not _median(original, "distinct_words"):
            raise InputError(
                "half of the unsteered texts are empty, so broken texts cannot be recognised: "
                "give other prompts"
            )
        tried = _upward(writing, original, vector * unit, hook_name, note)
    found = [
        {"alpha": sign * row["rel_norm"] * unit, **row} for sign in SIGNS for row in tried[sign]
    ]
    positive, negative = (_suggested([r for r in found if r["alpha"] * s > 0]) for s in SIGNS)
    return SuggestedAlpha(positive, negative, pd.DataFrame(found))


@dataclass(frozen=True)
class _Writing:
    """Greedy texts and their loss."""

    model: Model
    prompts: Sequence[Encoded]
    spec: CompareEditsSettings
    losses: dict[tuple[TokenIds, TokenIds], float] = field(default_factory=dict)
    """(prompt, text) → loss, as weak pushes leave texts as they are."""

    def texts(self, variants: Sequence[Variant]) -> list[pd.DataFrame]:
        """Each variant's texts: ids, loss and distinct_words for each prompt."""
        size, found = self.spec.batch_size, [list[tuple[Any, ...]]() for _ in variants]
        for start in range(0, len(self.prompts), size):
            prompts = self.prompts[start : start + size]
            batch = VariantTexts.of(self.model, prompts, self.spec)
            new = batch.written([(variant, 0) for variant in variants])
            heads = [e.head for e in prompts] * len(variants)
            rows = self._read(heads, [ids for each in new for ids in each.tolist()])
            for own in found:
                own += islice(rows, len(prompts))
        return [pd.DataFrame(own, columns=["ids", "loss", "distinct_words"]) for own in found]

    def _read(self, heads: list[TokenIds], new: list[list[int]]) -> Iterator[tuple[Any, ...]]:
        stops, tokenizer = [*stop_token_ids(self.model), UNDEFINED], tokenizer_of(self.model)
        kept = [tuple(takewhile(lambda i: i not in stops, ids)) for ids in new]
        pairs = list(zip(heads, kept, strict=True))
        if unknown := [pair for pair in dict.fromkeys(pairs) if pair not in self.losses]:
            found = text_losses(self.model, *zip(*unknown, strict=True))
            self.losses.update(zip(unknown, found, strict=True))
        for pair in pairs:
            text = completion_of(tokenizer, pair[1], stops)["completion"]
            yield pair[1], self.losses[pair], distinct_words(text) if text.strip() else 0.0


def _upward(
    writing: _Writing, original: pd.DataFrame, vector: Direction, hook_name: str, note: Note
) -> dict[int, list[dict[str, Any]]]:
    """Sign → rows of growing strength, ending with the first that breaks texts.

    As many strengths as fit into a batch are tried at once, with both signs.
    """
    found, alive = {sign: list[dict[str, Any]]() for sign in SIGNS}, list(SIGNS)
    n_prompts, left = len(original), STRENGTHS
    while alive and left:
        n = max(1, writing.spec.batch_size // (n_prompts * len(alive)))
        asked = [(sign, strength) for strength in left[:n] for sign in alive]
        variants = [
            Variant(f"{sign * strength:g}", {hook_name: (add(vector * sign, strength),)})
            for sign, strength in asked
        ]
        left = left[n:]
        for (sign, strength), texts in zip(asked, writing.texts(variants), strict=True):
            note(n_prompts)
            if sign not in alive:
                continue
            found[sign].append({"rel_norm": strength, **_compared(texts, original)})
            if found[sign][-1]["broken"]:
                alive.remove(sign)
                note(n_prompts * len(left))
    return found


def _compared(texts: pd.DataFrame, original: pd.DataFrame) -> dict[str, Any]:
    """The columns of SuggestedAlpha's table that follow from texts."""
    loss, words = (_median(original, name) for name in ("loss", "distinct_words"))
    pairs = zip(texts["ids"], original["ids"], strict=True)
    share = sum(new != old for new, old in pairs) / len(texts)
    now = {name: _median(texts, name) for name in ("loss", "distinct_words")}
    broken = not (now["loss"] <= loss + NATS and now["distinct_words"] > words / 2)
    return {"share_changed": share, **now, "changed": share >= 0.5, "broken": broken}


def _median(texts: pd.DataFrame, column: str) -> float:
    """The median over the texts that have a value; NaN if none has."""
    values = [float(value) for value in texts[column].dropna().tolist()]
    return float(np.median(values)) if values else float("nan")


def _suggested(rows: list[dict[str, Any]]) -> float | None:
    """The geometric mean of low and high; None if low is not below high."""
    whole = [row for row in rows if not row["broken"]]
    changed = [row["alpha"] for row in whole if row["changed"]]
    if not changed or changed[0] == whole[-1]["alpha"]:
        return None
    return float(np.sign(changed[0]) * np.sqrt(changed[0] * whole[-1]["alpha"]))
