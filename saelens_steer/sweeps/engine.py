"""The logit sweep: (direction, α, prompt) rows, batched, from the hook's layer on.

Steering in layer L leaves layers 0 … L − 1 untouched, so each prompt runs through them once; every
row then starts at layer L with its own vector, and only the last position is unembedded. Where a
model cannot be entered half-way (TransformerBridge), rows take the plain full pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from sae_lens import SAE
from torch import Tensor

from saelens_steer.activations import keep_ordinary
from saelens_steer.data import pad_left
from saelens_steer.errors import InputError
from saelens_steer.metrics import LogitMetric
from saelens_steer.model import (
    can_start_at_layer,
    hook_layer,
    last_token_logits,
    resid_to_last,
    run_to_hook,
    unembed,
)
from saelens_steer.sae.codec import encode
from saelens_steer.steering import (
    Edit,
    Positions,
    columns,
    edit_where,
    norm_limits,
    row_rel_norm,
    steered,
    within,
)
from saelens_steer.sweeps.cells import Cells
from saelens_steer.sweeps.plan import Batch
from saelens_steer.tensors import Logits, Mask, Resid, Tokens, Vectors

ENCODED = 4096
"""Vectors that go through the SAE at once."""
PROMPT_BATCH = 16
"""Prompts in one pass through the lower layers."""


@dataclass(frozen=True, kw_only=True)
class LogitSweep(Cells):
    """Everything that decides the rows of a logit sweep; no cell has α = 0."""

    metrics: Sequence[LogitMetric]
    positions: Positions = "all"
    exclude_special_tokens: bool = False
    max_norm: float | None = None
    """Attention sinks, over so many times their prompt's median norm, are left alone."""
    sae: SAE[Any] | None = None
    """Where given, the activation of a swept feature after the edit is recorded."""

    @cached_property
    def padded(self) -> tuple[Tokens, Mask]:
        """All prompts left-padded: tokens and mask [n_prompts, pos]."""
        return pad_left(self.prompts, self.model.tokenizer, device=self.model.cfg.device)

    @cached_property
    def from_layer(self) -> int | None:
        """The layer the rows start at, or None when they take the plain path."""
        if not can_start_at_layer(self.model):
            return None
        layer = hook_layer(self.hook_name)
        beyond = self.hook_name.endswith("hook_resid_post") and layer + 1 < self.model.cfg.n_layers
        return layer + 1 if beyond else layer  # resid_post(L) is resid_pre(L + 1)

    @property
    def entered_at_hook(self) -> bool:
        """Whether the rows start at the very hook that is steered."""
        if self.from_layer is None:
            return False
        return self.entry == self.hook_name or self.from_layer != hook_layer(self.hook_name)

    @property
    def entry(self) -> str:
        """The hook that the prefix is the activation of."""
        return f"blocks.{self.from_layer}.hook_resid_pre"

    @cached_property
    def prefix(self) -> Resid:
        """The unsteered residual where the rows start, [n_prompts, pos, d_model]: one pass each."""
        return self._read(self.entry)

    @cached_property
    def chosen(self) -> Mask:
        """Where the edits act [n_prompts, pos]: not on padding, nor on what is to be left alone.

        Special tokens and attention sinks are found in the unsteered pass, once for all rows.
        Raises InputError where a prompt has no position left.
        """
        tokens, real = self.padded
        width = tokens.shape[1]
        chosen = real & columns(self.positions, width, 0, width).to(real.device)
        if self.exclude_special_tokens:
            chosen = chosen & keep_ordinary(tokens, self.model.tokenizer)
        if self.max_norm is not None:
            resid = self.prefix if self.entered_at_hook else self._read(self.hook_name)
            chosen = chosen & within(resid, norm_limits(resid, real, self.max_norm))
        if not bool(chosen.any(1).all()):
            raise InputError(
                f"no position of some prompt is steered by positions: {self.positions} with "
                f"exclude_special_tokens: {self.exclude_special_tokens} and max_norm: "
                f"{self.max_norm}"
            )
        return chosen

    def _read(self, hook_name: str) -> Resid:
        return torch.cat([run_to_hook(self.model, t, m, hook_name) for t, m in self._pairs()])

    def _pairs(self) -> Iterator[tuple[Tokens, Mask]]:
        tokens, mask = self.padded
        return zip(tokens.split(PROMPT_BATCH), mask.split(PROMPT_BATCH), strict=True)

    @cached_property
    def baseline(self) -> Logits:
        """Unsteered last-token logits [n_prompts, d_vocab], float32."""
        if self.from_layer is None:
            return torch.cat([last_token_logits(self.model, t, m) for t, m in self._pairs()])
        pairs = zip(
            self.prefix.split(PROMPT_BATCH), self.padded[1].split(PROMPT_BATCH), strict=True
        )
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
    rows, n_pos = torch.from_numpy(batch.prompts), tokens.shape[1]
    mask = sweep.chosen[rows, -n_pos:]
    edit = sweep.row_edit(batch)
    if sweep.from_layer is None:
        logits, before = _plain_pass(sweep, edit, tokens, real, mask)
        after = edit_where([edit], before, mask)
    else:
        prefix = sweep.prefix[rows, -n_pos:]
        last, before, after = _upper_layers(sweep, sweep.from_layer, edit, prefix, real, mask)
        logits = unembed(sweep.model, last)
    return logits, _receipt(sweep, batch, before, after, mask)


def _upper_layers(
    sweep: LogitSweep, layer: int, edit: Edit, prefix: Resid, real: Mask, mask: Mask
) -> tuple[Float[Tensor, "batch d_model"], Resid, Resid]:
    """The final residual, and the hook's activation before and after, from the prefix on."""
    if sweep.entered_at_hook:
        after = edit_where([edit], prefix, mask)
        return resid_to_last(sweep.model, after, real, layer), prefix, after
    seen, recorded = _recorded(edit)
    with steered(sweep.model, recorded, sweep.hook_name, mask):
        last = resid_to_last(sweep.model, prefix, real, layer)
    return last, seen[0], edit_where([edit], seen[0], mask)


def _plain_pass(
    sweep: LogitSweep, edit: Edit, tokens: Tokens, real: Mask, mask: Mask
) -> tuple[Logits, Resid]:
    """Logits of a full pass, and the hook's activation before the edit."""
    seen, recorded = _recorded(edit)
    with steered(sweep.model, recorded, sweep.hook_name, mask):
        logits = last_token_logits(sweep.model, tokens, real)
    return logits, seen[0]


def _recorded(edit: Edit) -> tuple[list[Resid], Edit]:
    """The edit, and a list that will hold what it was given."""
    seen: list[Resid] = []
    return seen, Edit(edit.name, lambda x: seen.append(x) or edit(x), pointwise=False)


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
        "receipt_push": sweep.row_push(batch),
        "receipt_rel_norm": row_rel_norm(before, after, mask),
        "receipt_feature_act": _feature_acts(sweep, batch, after, mask),
    }


def _feature_acts(sweep: LogitSweep, batch: Batch, after: Resid, mask: Mask) -> Tensor:
    """Mean activation of each row's own feature over its steered positions; NaN for controls."""
    acts = torch.full((len(batch),), torch.nan, device=after.device)
    features = [sweep.directions.features[sweep.cells[cell][0]] for cell in batch.cells]
    rows = [row for row, feature in enumerate(features) if feature is not None]
    if sweep.sae is None or sweep.sae.cfg.metadata.decoder_only or not rows:
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
    z = encode(sae, vectors)
    return z.gather(1, features.to(z.device)[:, None])[:, 0].float()


def _columns(values: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """Columns of a table: float64, so that means over prompts are not rounded again."""
    wide = {name: v.double() if v.is_floating_point() else v for name, v in values.items()}
    return {name: value.cpu().numpy() for name, value in wide.items()}
