"""Strengths at which a direction changes texts without breaking them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Literal

import numpy as np
import pandas as pd

from saelens_steer.activations import Activations, cache_activations
from saelens_steer.config import CompareEditsSettings, checked, template_of
from saelens_steer.data import PromptLike, encode_prompts, pad_left
from saelens_steer.directions import text_losses
from saelens_steer.errors import InputError
from saelens_steer.features import measured_scale
from saelens_steer.metrics import completion_of, distinct_words
from saelens_steer.model import check_steerable, generate, hook_width, stop_token_ids
from saelens_steer.model.model_class import Model, tokenizer_of
from saelens_steer.pipeline.arguments import check_activations, given_prompts
from saelens_steer.progress import progress
from saelens_steer.steering import Variant, add
from saelens_steer.sweeps import ORIGINAL, check_comparable
from saelens_steer.tensors import Direction, VectorLike, as_vectors

FIRST, LAST, RATIO = 1 / 64, 16.0, 2**0.5
"""The grid of ‖αv‖ in multiples of mean ‖x‖, and the ratio of neighbours."""
NATS = 1.0
"""A rise of the median loss per token by more than this counts as broken text."""


@dataclass(frozen=True)
class SuggestedAlpha:
    """α for each sign, or None where texts break before half of them change.

    low is the smallest strength tried at which half of the texts differ from the unsteered ones,
    high the largest before they break; `positive` and `negative` are their geometric means.
    """

    positive: float | None
    negative: float | None
    table: pd.DataFrame
    """One row per strength tried: alpha, rel_norm (‖αv‖ / mean ‖x‖), share_changed, loss (median,
    nats per token, of the unsteered model), distinct_words (median share), changed, broken."""

    def __repr__(self) -> str:
        found = {"positive": self.positive, "negative": self.negative}
        parts = [f"{name}={'none' if a is None else f'{a:.4g}'}" for name, a in found.items()]
        return f"SuggestedAlpha({', '.join(parts)}, {len(self.table)} strengths tried)"


def suggest_alpha(
    model: Model,
    direction: VectorLike,
    prompts: Sequence[PromptLike],
    *,
    hook_name: str,
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
    median share of distinct words halves (loops lower the perplexity). `activations` at the hook
    give mean ‖x‖; by default those of the prompts are cached. TemplateSpec documents `chat` and the
    options after it. Raises InputError before any forward pass.
    """
    given = {
        "positions": positions, "exclude_special_tokens": exclude_special_tokens,
        "max_norm": max_norm, "max_new_tokens": max_new_tokens, "batch_size": batch_size,
    }  # fmt: skip
    spec = checked(CompareEditsSettings, given, "suggest_alpha")
    check_steerable(model, hook_name)
    vectors = as_vectors("direction", direction, hook_width(model, hook_name))
    if len(vectors) != 1 or not bool(vectors.isfinite().all() and vectors.any()):
        raise InputError("direction should be one vector that is finite and not zero")
    reading = (chat, system, add_generation_prompt, chat_template_kwargs)
    template, listed = template_of("suggest_alpha", *reading), given_prompts(model, prompts)
    encoded = encode_prompts(tokenizer_of(model), listed, template)
    check_comparable(model, encoded, spec)
    if activations is None:
        activations = cache_activations(model, listed, hook_name=hook_name, **template.options)
    check_activations(activations, model, hook_name)
    unit = measured_scale(activations).mean_norm / float(vectors.norm())
    writing = _Writing(model, [list(e.head) for e in encoded], [e.added for e in encoded], spec)
    with progress("suggest_alpha", None) as note:
        original = writing.texts(ORIGINAL)
        found = []
        for sign in (1, -1):
            for row in _upward(writing, original, vectors[0] * sign * unit, hook_name):
                found.append({"alpha": sign * row["rel_norm"] * unit, **row})
                note(len(listed))
    positive, negative = (_suggested([r for r in found if r["alpha"] * s > 0]) for s in (1, -1))
    return SuggestedAlpha(positive, negative, pd.DataFrame(found))


@dataclass(frozen=True)
class _Writing:
    """Greedy texts and their loss."""

    model: Model
    prompts: list[list[int]]
    added: list[int]
    spec: CompareEditsSettings

    def texts(self, variant: Variant) -> pd.DataFrame:
        """ids, text, loss and distinct_words of each prompt's text."""
        spec, rows = self.spec, []
        where = {
            "positions": spec.positions,
            "exclude_special_tokens": spec.exclude_special_tokens,
            "max_norm": spec.max_norm,
        }
        stops, tokenizer = stop_token_ids(self.model), tokenizer_of(self.model)
        for start in range(0, len(self.prompts), spec.batch_size):
            part = slice(start, start + spec.batch_size)
            cfg: Any = self.model.cfg
            tokens, mask = pad_left(self.prompts[part], tokenizer, cfg.device, cfg.d_vocab)
            with variant.applied(self.model, **where, added=self.added[part]):
                new = generate(self.model, tokens, mask, spec.max_new_tokens).tolist()
            kept = [list(takewhile(lambda i: i not in stops, ids)) for ids in new]
            losses = text_losses(self.model, self.prompts[part], kept)
            for ids, loss in zip(kept, losses, strict=True):
                text = completion_of(tokenizer, ids, stops)["completion"]
                rows.append((tuple(ids), loss, distinct_words(text)))
        return pd.DataFrame(rows, columns=["ids", "loss", "distinct_words"])


def _upward(
    writing: _Writing, original: pd.DataFrame, vector: Direction, hook_name: str
) -> Iterator[dict[str, Any]]:
    """Rows of growing strength, ending with the first that breaks texts."""
    loss, words = (_median(original, name) for name in ("loss", "distinct_words"))
    for step in range(1 + round(np.log(LAST / FIRST) / np.log(RATIO))):
        rel_norm = float(FIRST * RATIO**step)
        edits = {hook_name: (add(vector, rel_norm),)}
        texts = writing.texts(Variant(f"{rel_norm:g}", edits))
        pairs = zip(texts["ids"], original["ids"], strict=True)
        share = sum(new != old for new, old in pairs) / len(texts)
        now = {name: _median(texts, name) for name in ("loss", "distinct_words")}
        broken = not (now["loss"] <= loss + NATS and now["distinct_words"] > words / 2)
        row = {"rel_norm": rel_norm, "share_changed": share, **now}
        yield row | {"changed": share >= 0.5, "broken": broken}
        if broken:
            return


def _median(texts: pd.DataFrame, column: str) -> float:
    """The median over the texts that are not empty; NaN if all are."""
    values = [float(value) for value in texts[column].dropna().tolist()]
    return float(np.median(values)) if values else float("nan")


def _suggested(rows: list[dict[str, Any]]) -> float | None:
    """The geometric mean of low and high; None if low is not below high."""
    whole = [row for row in rows if not row["broken"]]
    changed = [row["alpha"] for row in whole if row["changed"]]
    if not changed or changed[0] == whole[-1]["alpha"]:
        return None
    return float(np.sign(changed[0]) * np.sqrt(changed[0] * whole[-1]["alpha"]))
