"""The logit sweep: every cell under every prompt, from the hook on.

Rows that can start at the hook do so (`Upper`); all others take whole forward passes, and
`LogitSweep.why_whole` says why.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from sae_lens import SAE
from torch import Tensor

from saelens_steer.metrics import LogitMetric
from saelens_steer.model import last_token_logits, unembed
from saelens_steer.sae import encode
from saelens_steer.steering import Edit, edit_where, relative_norms, steered
from saelens_steer.sweeps.cells import SweepCells
from saelens_steer.sweeps.plan import Batch, BatchSplitter, batches
from saelens_steer.tensors import Logits, Mask, PerRow, Resid, Tokens, Vectors

ENCODED = 4096
"""Vectors that go through the SAE at once."""
AT_ONCE = 256
"""Rows whose metrics are computed at once: some hold several copies of the vocabulary's logits."""


@dataclass(frozen=True, kw_only=True)
class LogitSweep(SweepCells):
    """Everything that decides the rows of a logit sweep; no cell has α = 0."""

    metrics: Sequence[LogitMetric]
    sae: SAE[Any] | None = None
    """Where given, the activation of a swept feature after the edit is recorded."""
    all_logits: bool = False
    """Compute the whole vocabulary even where the metrics read a few tokens of it."""

    @cached_property
    def columns(self) -> Tensor | None:
        """The only tokens that the metrics read; None where one reads all."""
        read = [metric.reads for metric in self.metrics]
        if self.all_logits or any(ids is None for ids in read):
            return None
        return torch.cat([ids for ids in read if ids is not None]).unique()

    def plan(self, cells: Sequence[int], whole: bool) -> list[Batch]:
        """The batches of some cells, in whole passes or from the hook on.

        A row costs its prompt's tokens, or one where the others' keys are shared; and where all of
        its logits are computed, what these take.
        """
        unsteered_pass, cfg = self.unsteered_pass, self.model.cfg
        logits = cfg.d_vocab // (2 * cfg.d_model) if self.columns is None else 0
        alone = unsteered_pass.positions == "last" and not whole
        sizes = [(1 if alone else n) + logits for n in unsteered_pass.lengths]
        return batches(cells, self.prompts, unsteered_pass.batch_tokens, sizes, padded=whole)


Found = dict[str, Tensor]
"""What rows gave, before metrics: cell, prompt, logits (of `columns` alone) and receipts."""


@torch.no_grad()
def unsteered_rows(sweep: LogitSweep, baseline: Logits) -> pd.DataFrame:
    """The α = 0 rows, one for each prompt: prompt, and each logit metric."""
    values = metric_values(sweep.metrics, baseline, baseline, None)
    return pd.DataFrame({"prompt": np.arange(len(sweep.prompts)), **_columns(values)})


def rows_of(sweep: LogitSweep, found: Found, baseline: Logits) -> pd.DataFrame:
    """Measured rows as a table: cell, prompt, each logit metric, and the receipt."""
    kept = dict(found)
    logits, places = kept.pop("logits"), {name: kept.pop(name) for name in ("cell", "prompt")}
    parts = []
    for some, prompts in zip(*(x.split(AT_ONCE) for x in (logits, places["prompt"])), strict=True):
        here, own = some.to(baseline.device), baseline[prompts.to(baseline.device)]
        parts.append(metric_values(sweep.metrics, here, own, sweep.columns))
    values = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    return pd.DataFrame(_columns(places | values | kept))


def metric_values(
    metrics: Sequence[LogitMetric], logits: Logits, baseline: Logits, columns: Tensor | None
) -> dict[str, PerRow]:
    """Each metric of some rows; `columns` are the tokens that the logits are of (None: all)."""
    if columns is not None:
        baseline = baseline[:, columns.to(baseline.device)]
    return {m.name: m.of(logits, baseline, columns) for m in metrics}


@torch.no_grad()
def measure(sweep: LogitSweep, whole: bool, batch: Batch) -> Found:
    """Run the rows of a batch, in whole passes or from the hook on."""
    found = _whole(sweep, batch) if whole else _from_hook(sweep, batch)
    places = {"cell": batch.row_cells, "prompt": batch.row_prompts}
    return {**{name: torch.tensor(numbers) for name, numbers in places.items()}, **found}


def measured(sweep: LogitSweep, splitter: BatchSplitter | None = None) -> Iterator[Found]:
    """Every cell under every prompt, a batch (or what fits of one) after the other."""
    whole, splitter = sweep.why_whole is not None, splitter or BatchSplitter()
    for batch in sweep.plan(range(len(sweep.cells)), whole):
        for _, found in splitter.run(batch, partial(measure, sweep, whole)):
            yield found


def _from_hook(sweep: LogitSweep, batch: Batch) -> Found:
    downstream, cells = sweep.unsteered_pass.downstream(batch.prompts), batch.cells
    last, done = downstream.run(lambda resid, chosen: sweep.steer(cells, resid, chosen))
    logits = unembed(sweep.model, last.flatten(0, 1), sweep.columns)
    tree, chosen = downstream.tree, downstream.chosen
    belongs = tree.membership(chosen)  # [node, prompt]
    if downstream.last_only:
        belongs = belongs[tree.last] * torch.eye(tree.n_rows, device=belongs.device)
    counts = belongs.sum(0)
    weights = belongs / counts.clamp_min(1)
    changed = relative_norms(done.before, done.after) @ weights
    acts = _feature_acts(sweep, batch, done.after, weights)
    return {"logits": logits, **_receipt(sweep, batch, counts, changed.flatten(), acts)}


def _whole(sweep: LogitSweep, batch: Batch) -> Found:
    """Left-padded rows through the whole model, the edit in a hook."""
    tokens, real = _rows(sweep, batch)
    unsteered_pass, width = sweep.unsteered_pass, tokens.shape[1]
    mask = unsteered_pass.chosen[batch.row_prompts, -width:]
    edit = sweep.row_edit(batch)
    seen: list[Resid] = []
    recorded = Edit(edit.name, lambda x: seen.append(x) or edit(x), pointwise=False)
    with steered(sweep.model, recorded, unsteered_pass.hook_name, mask, max_norm=None):
        logits = last_token_logits(sweep.model, tokens, real, sweep.columns)
    after = edit_where([edit], seen[0], mask)
    counts = mask[: len(batch.prompts)].sum(1)
    weights = mask / mask.sum(1, keepdim=True)
    changed = (relative_norms(seen[0], after) * weights).sum(1)
    acts = _feature_acts_by_row(sweep, batch, after, weights)
    return {"logits": logits, **_receipt(sweep, batch, counts, changed, acts)}


def _rows(sweep: LogitSweep, batch: Batch) -> tuple[Tokens, Mask]:
    """The batch's prompts, left-padded to its own longest."""
    tokens, mask = sweep.unsteered_pass.padded
    n_pos = max(sweep.unsteered_pass.lengths[p] for p in batch.prompts)
    rows = batch.row_prompts
    return tokens[rows, -n_pos:], mask[rows, -n_pos:]


def _receipt(
    sweep: LogitSweep, batch: Batch, counts: Tensor, changed: PerRow, acts: PerRow
) -> dict[str, Tensor]:
    """`counts` [prompt]; the others by row."""
    return {
        "receipt_positions": counts.long().repeat(len(batch.cells)),
        "receipt_push": sweep.sizes(batch.cells).repeat_interleave(len(batch.prompts)),
        "receipt_rel_norm": changed,
        "receipt_feature_act": acts,
    }


def _feature_acts(
    sweep: LogitSweep,
    batch: Batch,
    after: Float[Tensor, "cell node d_model"],
    weights: Float[Tensor, "node prompt"],
) -> PerRow:
    """Mean activation of each cell's own feature over steered positions; NaN for controls."""
    acts = torch.full((len(batch.cells), len(batch.prompts)), torch.nan, device=after.device)
    for place, feature in _own_features(sweep, batch.cells).items():
        acts[place] = activation_of(sweep.sae, after[place], feature) @ weights
    return acts.flatten()


def _feature_acts_by_row(
    sweep: LogitSweep, batch: Batch, after: Resid, weights: Float[Tensor, "row pos"]
) -> PerRow:
    acts = torch.full((len(batch),), torch.nan, device=after.device)
    for row, feature in _own_features(sweep, batch.row_cells).items():
        acts[row] = activation_of(sweep.sae, after[row], feature) @ weights[row]
    return acts


def _own_features(sweep: LogitSweep, cells: Sequence[int]) -> dict[int, int]:
    """Place among the cells → the feature it steers, where an SAE can say how it fires."""
    if sweep.sae is None or sweep.sae.cfg.metadata.decoder_only:
        return {}
    features = [sweep.directions.features[sweep.cells[cell][0]] for cell in cells]
    return {place: f for place, f in enumerate(features) if f is not None}


def activation_of(sae: Any, vectors: Vectors, feature: int) -> Float[Tensor, " n"]:
    """z of one feature for each vector: [n], float32."""
    z = [encode(sae, part)[:, feature].float() for part in vectors.split(ENCODED)]
    return torch.cat(z).to(vectors.device)


def _columns(values: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """Columns of a table: float64, so that means over prompts are not rounded again."""
    wide = {name: v.double() if v.is_floating_point() else v for name, v in values.items()}
    return {name: value.cpu().numpy() for name, value in wide.items()}
