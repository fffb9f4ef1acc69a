"""The logit sweep: (direction, α, prompt) rows, batched, from the hook's layer on.

Steering at blocks.L.hook_resid_pre leaves layers 0 … L − 1 untouched, so each prompt runs through
them once; every row then starts at layer L with its own vector, and only the last position is
unembedded. Where a model or hook does not allow that, rows take the plain full pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from sae_lens import SAE
from torch import Tensor

from saelens_steer.data import pad_left
from saelens_steer.metrics import LogitMetric
from saelens_steer.model import (
    can_start_at_layer,
    hook_layer,
    last_token_logits,
    resid_to_last,
    run_to_hook,
    unembed,
)
from saelens_steer.steering import Edit, Positions, columns, edit_where, row_rel_norm, steered
from saelens_steer.sweeps.cells import Cells
from saelens_steer.sweeps.plan import Batch
from saelens_steer.tensors import Logits, Mask, Resid, Tokens, Vectors

ENCODED = 4096
"""Vectors that go through the SAE at once."""
PROMPT_BATCH = 16
"""Prompts in one pass through the lower layers."""


@dataclass(frozen=True)
class LogitSweep(Cells):
    """Everything that decides the rows of a logit sweep; no cell has α = 0."""

    metrics: Sequence[LogitMetric]
    positions: Positions = "all"
    sae: SAE[Any] | None = None
    """Where given, the activation of a swept feature after the edit is recorded."""

    @cached_property
    def padded(self) -> tuple[Tokens, Mask]:
        """All prompts left-padded: tokens and mask [n_prompts, pos]."""
        return pad_left(self.prompts, self.model.tokenizer, device=self.model.cfg.device)

    @cached_property
    def from_layer(self) -> int | None:
        """The layer the rows start at, or None when they take the plain path."""
        skippable = self.hook_name.endswith("hook_resid_pre") and can_start_at_layer(self.model)
        return hook_layer(self.hook_name) if skippable else None

    @cached_property
    def prefix(self) -> Resid:
        """The unsteered residual at the hook, [n_prompts, pos, d_model]: one pass per prompt."""
        tokens, mask = self.padded
        pairs = zip(tokens.split(PROMPT_BATCH), mask.split(PROMPT_BATCH), strict=True)
        return torch.cat([run_to_hook(self.model, t, m, self.hook_name) for t, m in pairs])

    @cached_property
    def baseline(self) -> Logits:
        """Unsteered last-token logits [n_prompts, d_vocab], float32."""
        tokens, mask = self.padded
        if self.from_layer is None:
            pairs = zip(tokens.split(PROMPT_BATCH), mask.split(PROMPT_BATCH), strict=True)
            return torch.cat([last_token_logits(self.model, t, m) for t, m in pairs])
        pairs = zip(self.prefix.split(PROMPT_BATCH), mask.split(PROMPT_BATCH), strict=True)
        last = torch.cat([resid_to_last(self.model, x, m, self.from_layer) for x, m in pairs])
        return unembed(self.model, last)


@torch.no_grad()
def unsteered_rows(sweep: LogitSweep) -> pd.DataFrame:
    """The α = 0 rows, one for each prompt: prompt, and each logit metric."""
    values = {m.name: m.fn(sweep.baseline, sweep.baseline) for m in sweep.metrics}
    return pd.DataFrame({"prompt": np.arange(len(sweep.prompts)), **_columns(values)})


@torch.no_grad()
def steered_rows(sweep: LogitSweep, batches: Sequence[Batch]) -> pd.DataFrame:
    """Rows of some batches: cell, prompt, each logit metric, and the receipt."""
    return pd.concat([_batch_rows(sweep, batch) for batch in batches], ignore_index=True)


def _batch_rows(sweep: LogitSweep, batch: Batch) -> pd.DataFrame:
    logits, receipt = _forward(sweep, batch)
    baseline = sweep.baseline[torch.from_numpy(batch.prompts)]
    values = {m.name: m.fn(logits, baseline) for m in sweep.metrics}
    return pd.DataFrame(
        {"cell": batch.cells, "prompt": batch.prompts, **_columns(values | receipt)}
    )


def _forward(sweep: LogitSweep, batch: Batch) -> tuple[Logits, dict[str, Tensor]]:
    """Last-token logits of the batch's rows, and what steering did to each."""
    tokens, real = _rows(sweep, batch)
    n_pos = tokens.shape[1]
    mask = real & columns(sweep.positions, n_pos, 0, n_pos).to(real.device)
    edit = sweep.row_edit(batch)
    if sweep.from_layer is not None:
        before = sweep.prefix[torch.from_numpy(batch.prompts), -n_pos:]
        after = edit_where([edit], before, mask)
        last = resid_to_last(sweep.model, after, real, sweep.from_layer)
        return unembed(sweep.model, last), _receipt(sweep, batch, before, after, mask)
    seen: list[Resid] = []
    recorded = Edit(edit.name, lambda resid: seen.append(resid) or edit(resid))
    with steered(sweep.model, recorded, sweep.hook_name, mask):
        logits = last_token_logits(sweep.model, tokens, real)
    after = edit_where([edit], seen[0], mask)
    return logits, _receipt(sweep, batch, seen[0], after, mask)


def _rows(sweep: LogitSweep, batch: Batch) -> tuple[Tokens, Mask]:
    """The batch's prompts, left-padded to its own longest."""
    tokens, mask = sweep.padded
    n_pos = max(len(sweep.prompts[p]) for p in batch.prompts)
    rows = torch.from_numpy(batch.prompts)
    return tokens[rows, -n_pos:], mask[rows, -n_pos:]


def _receipt(
    sweep: LogitSweep, batch: Batch, before: Resid, after: Resid, mask: Mask
) -> dict[str, Tensor]:
    return {
        "receipt_positions": mask.sum(1),
        "receipt_rel_norm": row_rel_norm(before, after, mask),
        "receipt_feature_act": _feature_acts(sweep, batch, after, mask),
    }


def _feature_acts(sweep: LogitSweep, batch: Batch, after: Resid, mask: Mask) -> Tensor:
    """Mean activation of each row's own feature over its steered positions; NaN for controls."""
    acts = torch.full((len(batch),), torch.nan, device=after.device)
    features = [sweep.directions.features[sweep.cells[cell][0]] for cell in batch.cells]
    rows = [row for row, feature in enumerate(features) if feature is not None]
    if sweep.sae is None or not rows:
        return acts
    row, position = mask[rows].nonzero(as_tuple=True)
    which = torch.tensor([features[r] for r in rows], device=after.device)[row]
    parts = zip(after[rows][row, position].split(ENCODED), which.split(ENCODED), strict=True)
    z = torch.cat([_own_feature(sweep.sae, vectors, w) for vectors, w in parts])
    sums = torch.zeros(len(rows), device=after.device).index_add_(0, row, z.to(after.device))
    acts[rows] = sums / mask[rows].sum(1)
    return acts


def _own_feature(sae: SAE[Any], vectors: Vectors, features: Tensor) -> Tensor:
    """z of one feature for each vector: [n], float32."""
    z = sae.encode(vectors.to(sae.device, sae.dtype))
    return z.gather(1, features.to(z.device)[:, None])[:, 0].float()


def _columns(values: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """Columns of a table: float64, so that means over prompts are not rounded again."""
    wide = {name: v.double() if v.is_floating_point() else v for name, v in values.items()}
    return {name: value.cpu().numpy() for name, value in wide.items()}
