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
from saelens_steer.data import Encoded
from saelens_steer.errors import InputError
from saelens_steer.files import digest
from saelens_steer.metrics import LogitMetric, Metric, read_completion
from saelens_steer.model import flat, last_token_logits, same_places, stop_token_ids
from saelens_steer.model.model_class import tokenizer_of
from saelens_steer.progress import Note, say, unnoted
from saelens_steer.sae import encode
from saelens_steer.steering import Variant, row_rel_norm
from saelens_steer.sweeps.texts import NewTokens, check_room
from saelens_steer.sweeps.variant_texts import VariantTexts
from saelens_steer.tensors import Logits, Mask, Resid

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


@torch.no_grad()
def edits_table(job: EditComparison, note: Note = unnoted) -> pd.DataFrame:
    """One row per prompt × variant × sample, the original first.

    Columns: prompt_id, domain, prompt, variant, edits, hook_name, sample, completion, truncated,
    n_tokens, each metric (NaN, and truncated None, if the residual overflows), and the receipt of
    the prompt's pass: the number of positions changed, their mean ‖Δx‖/‖x‖ and, averaged over the
    variant's features, the largest activation in the prompt before the edit and after re-encoding.
    Variants draw the same random numbers.
    """
    size = job.spec.batch_size
    batches = (job.prompts[start : start + size] for start in range(0, len(job.prompts), size))
    table = pd.concat([_batch_rows(job, prompts, note) for prompts in batches], ignore_index=True)
    lost = table[["truncated", "receipt_rel_norm"]].isna().to_numpy().any(1)
    if lost.any():
        named = ", ".join(map(repr, table.loc[lost, "variant"].unique()[:3]))
        say(
            f"warning: the residual stream overflows in {int(lost.sum())} of {len(table)} rows "
            f"({named}), which have no metrics: choose smaller strengths"
        )
    return table


def check_comparable(
    model: Any,
    prompts: Sequence[Encoded],
    spec: CompareEditsSettings,
    n_variants: int,
    section: str = "",
) -> None:
    """Raise InputError if the model cannot read or continue a prompt, or for too many texts.

    Also if there are no prompts. `section`: the config's, with a dot, if the spec is from one.
    """
    if not prompts:
        raise InputError("no prompts to compare edits on: the prompt set is empty")
    check_room(model, prompts, spec.max_new_tokens, f"{section}max_new_tokens")
    spec.check_size(len(prompts), n_variants)


def _batch_rows(job: EditComparison, prompts: Sequence[Encoded], note: Note) -> pd.DataFrame:
    """Rows of a batch of prompts, grouped by prompt."""
    batch = VariantTexts.of(job.model, prompts, job.spec, job.temperature)
    logits = last_token_logits(job.model, batch.tokens, batch.real)
    asked = pd.DataFrame([(e.prompt.id, e.prompt.domain, e.prompt.text) for e in prompts])
    asked.columns = ["prompt_id", "domain", "prompt"]
    written = zip((ORIGINAL, *job.variants), _written(job, batch, note), strict=True)
    parts = [_variant_rows(job, one, new, batch, logits, asked) for one, new in written]
    return pd.concat(parts).sort_index(kind="stable").reset_index(drop=True)


def _written(job: EditComparison, batch: VariantTexts, note: Note) -> list[list[NewTokens]]:
    """The new tokens of the original and of each variant, by sample."""
    ids, samples = batch.tokens.tolist(), range(job.samples)
    seeds = [int(digest(job.seed, sample, ids), 16) % 2**31 for sample in samples]
    original = batch.written([(ORIGINAL, seed) for seed in seeds], note)
    edited = [job.spec.positions != "generated" or _is_read(job.model, new) for new in original]
    asked = [(one, seeds[s]) for one in job.variants for s in samples if edited[s]]
    found = iter(batch.written(asked, note))
    note(len(ids) * (len(job.variants) * job.samples - len(asked)))
    return [
        original,
        *([next(found) if edited[s] else original[s] for s in samples] for _ in job.variants),
    ]


def _is_read(model: Any, new: NewTokens) -> bool:
    """Whether the model reads a new token, in a row that its first one does not end."""
    stops = torch.tensor(stop_token_ids(model), device=new.device)
    return not bool(torch.isin(new[:, 0], stops).all())


def _variant_rows(
    job: EditComparison,
    variant: Variant,
    new: Sequence[NewTokens],
    batch: VariantTexts,
    baseline: Logits,
    asked: pd.DataFrame,
) -> pd.DataFrame:
    seen, logits = _Seen(variant), baseline
    if variant.edits and job.spec.positions != "generated":  # else the prompt is not edited
        with (
            seen.noting(seen.before, job.model),
            variant.applied(job.model, **batch.where),
            seen.noting(seen.after, job.model),
        ):
            logits = last_token_logits(job.model, batch.tokens, batch.real)
    stops, receipt = stop_token_ids(job.model), seen.receipt(job.sae, batch.real)
    lost = torch.tensor(receipt["receipt_rel_norm"].isna().to_numpy(), device=logits.device)
    logits = logits.masked_fill(lost[:, None], torch.nan)
    metrics = [m for m in job.metrics if isinstance(m, LogitMetric)]
    values = {m.name: m.of(logits, baseline=baseline).double().cpu().numpy() for m in metrics}
    about = {"variant": variant.name, "edits": variant.label, "hook_name": ", ".join(variant.edits)}
    tokenizer = tokenizer_of(job.model)
    parts = []
    for sample, ids in enumerate(new):
        read = [read_completion(tokenizer, i, stops, job.metrics) for i in ids.tolist()]
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
