"""Compare edits: completions and logits of each variant of a model and of the original."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from sae_lens import SAE
from torch import Tensor

from saelens_steer.config import CompareEditsSettings
from saelens_steer.data import Encoded, pad_left
from saelens_steer.errors import InputError
from saelens_steer.files import digest
from saelens_steer.metrics import LogitMetric, Metric, read_completion
from saelens_steer.model import flat, generate, last_token_logits, same_places, stop_token_ids
from saelens_steer.progress import Note, unnoted
from saelens_steer.sae import encode
from saelens_steer.steering import Variant, row_rel_norm
from saelens_steer.sweeps.texts import NewTokens
from saelens_steer.tensors import Logits, Mask, Resid, Tokens

ORIGINAL = Variant("original", {})
"""The unedited model."""


@dataclass(frozen=True)
class EditComparison:
    """Inputs of `edits_table`."""

    model: Any
    prompts: Sequence[Encoded]
    variants: Sequence[Variant]
    metrics: Sequence[Metric]
    spec: CompareEditsSettings
    sae: SAE[Any] | None = None
    """If given, activations of the edited features are recorded before and after."""
    temperature: float = 0.0
    samples: int = 1
    seed: int = 0

    @property
    def n_rows(self) -> int:
        """Prompts × variants × samples, the original included."""
        return len(self.prompts) * (1 + len(self.variants)) * self.samples

    @property
    def where(self) -> dict[str, Any]:
        """Keywords of `steered`."""
        keys = ("positions", "exclude_special_tokens", "max_norm")
        return {key: getattr(self.spec, key) for key in keys}


@torch.no_grad()
def edits_table(job: EditComparison, note: Note = unnoted) -> pd.DataFrame:
    """One row per prompt × variant × sample, the original first.

    Columns: prompt_id, domain, prompt, variant, edits, hook_name, sample, completion, truncated,
    n_tokens, each metric, and the receipt of the prompt's pass: the number of positions changed,
    their mean ‖Δx‖/‖x‖ and, averaged over the variant's features, the largest activation in the
    prompt before the edit and after re-encoding. Variants draw the same random numbers.
    """
    parts = []
    for start in range(0, len(job.prompts), job.spec.batch_size):
        parts.append(_batch_rows(job, job.prompts[start : start + job.spec.batch_size]))
        note(len(parts[-1]))
    return pd.concat(parts, ignore_index=True)


def check_comparable(model: Any, prompts: Sequence[Encoded], spec: CompareEditsSettings) -> None:
    """Raise InputError if there are no prompts, or if one leaves no room for its completion."""
    if not prompts:
        raise InputError("no prompts to compare edits on: the prompt set is empty")
    longest, n_new = max(len(e.head) for e in prompts), spec.max_new_tokens
    if longest + n_new > model.cfg.n_ctx:
        raise InputError(
            f"compare_edits: the longest prompt ({longest} tokens) plus max_new_tokens ({n_new}) "
            f"exceeds the model's n_ctx ({model.cfg.n_ctx}): shorten one of them"
        )


@dataclass(frozen=True)
class _Batch:
    """Prompts with the original model's last-token logits and completions."""

    tokens: Tokens
    real: Mask
    logits: Logits
    new: list[NewTokens]
    """One per sample."""
    added: list[int]
    """Length of each prompt's BOS that is never steered."""


def _batch_rows(job: EditComparison, prompts: Sequence[Encoded]) -> pd.DataFrame:
    """Rows of a batch of prompts, grouped by prompt."""
    rows, model = [e.head for e in prompts], job.model
    tokens, real = pad_left(rows, model.tokenizer, model.cfg.device, model.cfg.d_vocab)
    logits = last_token_logits(model, tokens, real)
    new = _written(job, tokens, real)
    batch = _Batch(tokens, real, logits, new, [e.added for e in prompts])
    asked = pd.DataFrame([(e.prompt.id, e.prompt.domain, e.prompt.text) for e in prompts])
    asked.columns = ["prompt_id", "domain", "prompt"]
    parts = [_variant_rows(job, variant, batch, asked) for variant in (ORIGINAL, *job.variants)]
    return pd.concat(parts).sort_index(kind="stable").reset_index(drop=True)


def _written(job: EditComparison, tokens: Tokens, real: Mask) -> list[NewTokens]:
    """The new tokens of each sample, with the hooks that are on the model."""
    length, found = job.spec.max_new_tokens, []
    for sample in range(job.samples):
        seed = int(digest(job.seed, sample, tokens.tolist()), 16) % 2**31
        found.append(generate(job.model, tokens, real, length, job.temperature, seed))
    return found


def _variant_rows(
    job: EditComparison, variant: Variant, batch: _Batch, asked: pd.DataFrame
) -> pd.DataFrame:
    seen, logits, new = _Seen(variant), batch.logits, batch.new
    where = {**job.where, "added": batch.added}
    if variant.edits and job.spec.positions != "generated":  # else the prompt is not edited
        with (
            seen.noting(seen.before, job.model),
            variant.applied(job.model, **where),
            seen.noting(seen.after, job.model),
        ):
            logits = last_token_logits(job.model, batch.tokens, batch.real)
    longest = max(ids.shape[1] for ids in batch.new)
    nothing_edited = job.spec.positions == "generated" and longest <= 1
    if variant.edits and not nothing_edited:  # the last new token is never read
        with variant.applied(job.model, **where):
            new = _written(job, batch.tokens, batch.real)
    metrics = [m for m in job.metrics if isinstance(m, LogitMetric)]
    values = {m.name: m.of(logits, baseline=batch.logits).double().cpu().numpy() for m in metrics}
    about = {"variant": variant.name, "edits": variant.label, "hook_name": ", ".join(variant.edits)}
    stops, receipt = stop_token_ids(job.model), seen.receipt(job.sae, batch.real)
    parts = []
    for sample, ids in enumerate(new):
        read = [read_completion(job.model.tokenizer, i, stops, job.metrics) for i in ids.tolist()]
        front = pd.DataFrame([about | {"sample": sample}] * len(read))
        texts = pd.DataFrame(read).assign(**values)
        parts.append(pd.concat([asked, front, texts, receipt], axis=1))
    return pd.concat(parts)


@dataclass
class _Seen:
    """Activations at a variant's hooks, before and after its edits."""

    variant: Variant
    before: dict[str, Resid] = field(default_factory=dict)
    after: dict[str, Resid] = field(default_factory=dict)
    """Both: hook → activations."""

    @contextlib.contextmanager
    def noting(self, store: dict[str, Resid], model: Any) -> Iterator[None]:
        """Record activations in `store`; enter it before or after the edits."""

        def note(name: str, resid: Tensor, hook: Any) -> None:  # noqa: ARG001 (passed as hook=)
            store[name] = flat(name, resid.detach())

        with model.hooks(fwd_hooks=[(name, partial(note, name)) for name in self.variant.edits]):
            yield

    def receipt(self, sae: SAE[Any] | None, real: Mask) -> pd.DataFrame:
        """One row per prompt; zeros for the original. Sums counts over hooks, averages norms."""
        n_rows = len(real)
        columns: dict[str, np.ndarray] = {
            "receipt_changed": np.zeros(n_rows, dtype=int),
            "receipt_rel_norm": np.zeros(n_rows),
            "receipt_act_before": np.full(n_rows, np.nan),
            "receipt_act": np.full(n_rows, np.nan),
        }
        for name, before in self.before.items():
            after = self.after[name]
            moved = (before != after).any(-1)
            columns["receipt_changed"] += moved.sum(1).cpu().numpy()
            size = row_rel_norm(before, after, moved).cpu().numpy() / len(self.before)
            columns["receipt_rel_norm"] += size
        if self.variant.features and sae is not None and (name := self._read_by(sae)):
            columns |= self._activations(sae, name, real)
        return pd.DataFrame(columns)

    def _read_by(self, sae: SAE[Any]) -> str | None:
        """The variant's hook that the SAE reads; None without one, or without an encoder."""
        about = sae.cfg.metadata
        places = self.before if about.hook_name is None else same_places(about.hook_name)
        return next((n for n in self.before if n in places and not about.decoder_only), None)

    def _activations(self, sae: SAE[Any], name: str, real: Mask) -> dict[str, np.ndarray]:
        """The largest activation in each prompt, averaged over the variant's features."""
        rows = list(self.variant.features)
        pair = [encode(sae, x)[..., rows].float() for x in (self.before[name], self.after[name])]
        padding = ~real.to(pair[0].device)[..., None]
        highest = [z.masked_fill(padding, 0.0).amax(1).mean(-1).cpu().numpy() for z in pair]
        return {"receipt_act_before": highest[0], "receipt_act": highest[1]}
