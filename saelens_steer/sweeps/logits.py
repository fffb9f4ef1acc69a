"""The logit sweep: every cell × prompt, measured in batches and kept in shards.

Rows start at the hook: as nodes of a tree of tokens (`Downstream`) or, if plain layers cannot run
the model, left-padded through TransformerLens's own. `LogitSweep.full_pass_reason` says why they
need full forward passes instead.
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

from saelens_steer.files import digest
from saelens_steer.metrics import LogitMetric
from saelens_steer.model import last_token_logits, unembed
from saelens_steer.progress import Note, unnoted
from saelens_steer.sae import reads_where_it_steers
from saelens_steer.steering import Edit, activations_of, changes, steered_shares
from saelens_steer.sweeps.cells import SweepCells
from saelens_steer.sweeps.plan import Batch, BatchSplitter, batches
from saelens_steer.sweeps.store import NO_STORE, Store
from saelens_steer.tensors import Logits, PerRow, Resid

AT_ONCE = 256
"""Rows whose metrics are computed at once: some metrics copy all logits several times."""
UNSTEERED = -1
"""Cell number of the α = 0 rows, which all directions share."""
Found = dict[str, Tensor]
"""A batch's rows before metrics: cell, prompt, logits (only of `columns`) and receipts."""


@dataclass(frozen=True, kw_only=True)
class LogitSweep(SweepCells):
    """Everything that determines the rows of a logit sweep; no cell has α = 0."""

    metrics: Sequence[LogitMetric]
    sae: SAE[Any] | None = None
    """If given, the activation of each cell's feature after the edit is recorded."""
    all_logits: bool = False
    """Compute the logits of all tokens even if the metrics read only some."""

    @cached_property
    def columns(self) -> Tensor | None:
        """The tokens that the metrics read; None: all."""
        read = [metric.reads for metric in self.metrics]
        if self.all_logits or any(ids is None for ids in read):
            return None
        return torch.cat([ids for ids in read if ids is not None]).unique()

    @property
    def padded(self) -> bool:
        """Whether rows are left-padded, for the model itself, and not nodes of a tree of tokens."""
        return (self.full_pass_reason or self.unsteered_pass.padded_reason) is not None

    def plan(self, cells: Sequence[int], padded: bool) -> list[Batch]:
        """Split cells into batches of left-padded rows, or of prompts as a tree.

        A row costs its prompt's tokens, or one if it shares the earlier tokens' keys, plus an
        allowance for logits of the full vocabulary.
        """
        unsteered_pass, cfg = self.unsteered_pass, self.model.cfg
        logits = cfg.d_vocab // (2 * cfg.d_model) if self.columns is None else 0
        shared = unsteered_pass.positions == "last" and not padded
        sizes = [(1 if shared else n) + logits for n in unsteered_pass.lengths]
        return batches(cells, self.prompts, unsteered_pass.batch_tokens, sizes, padded)


def run_logits(sweep: LogitSweep, store: Store = NO_STORE) -> pd.DataFrame:
    """Measure every (cell, prompt): columns cell, prompt, metrics and receipt; α = 0 is cell −1."""
    parts = (rows for _, rows in logit_shards(sweep, store))
    return pd.concat([unsteered_rows(sweep, store), *parts], ignore_index=True)


@torch.no_grad()
def unsteered_rows(
    sweep: LogitSweep, store: Store, logits: Store = NO_STORE, note: Note = unnoted
) -> pd.DataFrame:
    """The α = 0 rows, one per prompt, from the store: prompt, each logit metric, cell."""

    def compute() -> pd.DataFrame:
        baseline = _baseline(sweep, logits)
        values = _metric_values(sweep.metrics, baseline, baseline, None)
        prompts = np.arange(len(sweep.prompts))
        return pd.DataFrame({"prompt": prompts, **_as_columns(values)}).assign(cell=UNSTEERED)

    rows = store.frame("unsteered", compute)
    note(len(rows))
    return rows


def logit_shards(
    sweep: LogitSweep,
    store: Store,
    logits: Store = NO_STORE,
    splitter: BatchSplitter | None = None,
    note: Note = unnoted,
) -> Iterator[tuple[range, pd.DataFrame]]:
    """Each shard's cells and rows, in order; `note` is given the rows in each shard.

    `logits` keeps last-token logits and receipts, so that new metrics need no forward pass.
    """
    kept = _KeptLogits(sweep, logits, splitter or BatchSplitter())
    for shard in sweep.shards:
        name = digest(sweep.identities(shard))
        rows = store.frame(name, partial(kept.rows, shard, name))
        note(len(rows))
        yield shard, rows.assign(cell=rows["cell"] + shard.start)


@dataclass(frozen=True)
class _KeptLogits:
    """Rows of shards, from stored logits if there are any."""

    sweep: LogitSweep
    logits: Store
    splitter: BatchSplitter

    @cached_property
    def baseline(self) -> Logits:
        return _baseline(self.sweep, self.logits)

    @cached_property
    def padded(self) -> bool:
        """`LogitSweep.padded`; stored with the logits, since the check runs a pass."""

        def found() -> dict[str, Tensor]:
            return {"padded": torch.tensor(self.sweep.padded)}

        return bool(self.logits.tensors("rows", found)["padded"])

    def rows(self, shard: range, name: str) -> pd.DataFrame:
        """Rows of a shard, with cells numbered from 0, so that all sweeps can share them."""
        sweep, frames = self.sweep, []
        for number, batch in enumerate(sweep.plan(shard, self.padded)):
            run = partial(self._batch, batch, shard.start)
            found = self.logits.tensors(f"{name}-{number:04d}", run)
            frames.append(rows_of(sweep, found, self.baseline))
        return pd.concat(frames, ignore_index=True)

    def _batch(self, batch: Batch, first: int) -> Found:
        """A measured batch, rejoined if it had to be split; cells numbered from `first`."""
        parts = self.splitter.run(batch, partial(measure, self.sweep, self.padded))
        found, *more = parts
        if more:
            found = {key: torch.cat([part[key] for part in parts]) for key in found}
        return {**found, "cell": found["cell"] - first}


def _baseline(sweep: LogitSweep, logits: Store) -> Logits:
    """Unsteered last-token logits [n_prompts, d_vocab], from the store."""
    found = logits.tensors("unsteered", lambda: {"logits": sweep.unsteered_pass.baseline})["logits"]
    return found.to(sweep.unsteered_pass.device)


def measured_batches(sweep: LogitSweep, splitter: BatchSplitter | None = None) -> Iterator[Found]:
    """Measure every cell × prompt, batch by batch (or by parts that fit into memory)."""
    padded, splitter = sweep.padded, splitter or BatchSplitter()
    for batch in sweep.plan(range(len(sweep.cells)), padded):
        yield from splitter.run(batch, partial(measure, sweep, padded))


@torch.no_grad()
def measure(sweep: LogitSweep, padded: bool, batch: Batch) -> Found:
    """Run the rows of a batch, through the model itself or over a tree of tokens."""
    found = _padded(sweep, batch) if padded else _over_tree(sweep, batch)
    places = {"cell": batch.row_cells, "prompt": batch.row_prompts}
    return {**{name: torch.tensor(numbers) for name, numbers in places.items()}, **found}


def _over_tree(sweep: LogitSweep, batch: Batch) -> Found:
    downstream, cells = sweep.unsteered_pass.downstream(batch.prompts), batch.cells
    last, done = downstream.run(lambda resid, chosen: sweep.steer(cells, resid, chosen))
    logits = unembed(sweep.model, last.flatten(0, 1), sweep.columns)
    tree = downstream.tree
    belongs = tree.membership(downstream.chosen)  # [node, prompt]
    if downstream.last_only:
        belongs = belongs[tree.last] * torch.eye(tree.n_rows, device=belongs.device)
    counts = belongs.sum(0)
    weights = belongs / counts.clamp_min(1)
    sizes, lost = changes(done.before, done.after)
    unusable = (lost.float() @ (weights > 0).float()).flatten() > 0
    changed = (sizes @ weights).flatten()
    acts = _feature_acts(sweep, cells, done.after, weights.expand(len(cells), -1, -1))
    return _marked(logits, unusable, _receipt(sweep, batch, counts, changed, acts))


def _padded(sweep: LogitSweep, batch: Batch) -> Found:
    """Left-padded rows, edited in a hook of the model, in full passes or from the hook on."""
    unsteered_pass, whole = sweep.unsteered_pass, sweep.full_pass_reason is not None
    tokens, real = unsteered_pass.padded_rows(batch)
    mask = unsteered_pass.chosen[batch.row_prompts, -tokens.shape[1] :]
    edit = sweep.row_edit(batch)
    seen: list[Resid] = []

    def recorded(x: Resid) -> Resid:
        seen.extend((x, edited := edit(x)))
        return edited

    name = unsteered_pass.hook_name if whole else unsteered_pass.site.hook_name
    spy = Edit(edit.name, recorded, pointwise=False)
    shares = [(slice(None), [spy])]
    with steered_shares(sweep.model, shares, name, mask, max_norm=None) as (receipt,):
        if whole:
            logits = last_token_logits(sweep.model, tokens, real, sweep.columns)
        else:
            last = unsteered_pass.last_from_hook(batch.row_prompts)
            logits = unembed(sweep.model, last, sweep.columns)
    if receipt.passes != 1 or receipt.positions != int(mask.sum()):
        raise RuntimeError(
            f"a batch steered {receipt.positions} positions in {receipt.passes} passes, not "
            f"{int(mask.sum())} in one, so its rows would be wrong"
        )
    before, after = seen[0], torch.where(mask[..., None], seen[1], seen[0])
    counts = mask[: len(batch.prompts)].sum(1)
    weights = mask / mask.sum(1, keepdim=True)
    sizes, lost = changes(before, after)
    changed, unusable = (sizes * weights).sum(1), (lost & (weights > 0)).any(1)
    acts = _feature_acts(sweep, batch.row_cells, after, weights)
    return _marked(logits, unusable, _receipt(sweep, batch, counts, changed, acts))


def _marked(logits: Logits, unusable: Tensor, receipt: Found) -> Found:
    """Logits and receipt, with NaN in rows whose push overflowed."""
    if bool(unusable.any()):
        logits = logits.masked_fill(unusable[:, None], torch.nan)
        for name in ("receipt_rel_norm", "receipt_feature_act"):
            receipt[name] = receipt[name].masked_fill(unusable, torch.nan)
    return {"logits": logits, **receipt}


def _receipt(
    sweep: LogitSweep, batch: Batch, counts: Tensor, changed: PerRow, acts: PerRow
) -> dict[str, Tensor]:
    """Receipt columns; `counts` is per prompt, the others per row."""
    return {
        "receipt_positions": counts.long().repeat(len(batch.cells)),
        "receipt_push": sweep.sizes(batch.cells).repeat_interleave(len(batch.prompts)),
        "receipt_rel_norm": changed,
        "receipt_feature_act": acts,
    }


def _feature_acts(
    sweep: LogitSweep,
    cells: Sequence[int],
    after: Float[Tensor, "cell pos d_model"],
    weights: Float[Tensor, "cell pos *prompt"],
) -> PerRow:
    """Mean activation of each cell's feature over steered positions; NaN for controls, or without
    an encoder of what is steered."""
    acts = torch.full((len(cells), *weights.shape[2:]), torch.nan, device=after.device)
    if sweep.sae is not None and reads_where_it_steers(sweep.sae):
        for place, cell in enumerate(cells):
            feature = sweep.directions.features[sweep.cells[cell][0]]
            if feature is not None:
                z = activations_of(sweep.sae, after[place], [feature])[:, 0]
                z = z.nan_to_num(0.0, 0.0, 0.0)  # rows of these positions are marked
                acts[place] = z @ weights[place]
    return acts.flatten()


def rows_of(sweep: LogitSweep, found: Found, baseline: Logits) -> pd.DataFrame:
    """Measured rows as a table: cell, prompt, each logit metric and the receipt."""
    kept = dict(found)
    logits, places = kept.pop("logits"), {name: kept.pop(name) for name in ("cell", "prompt")}
    parts = []
    for part, prompts in zip(*(x.split(AT_ONCE) for x in (logits, places["prompt"])), strict=True):
        here, unsteered = part.to(baseline.device), baseline[prompts.to(baseline.device)]
        parts.append(_metric_values(sweep.metrics, here, unsteered, sweep.columns))
    values = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    return pd.DataFrame(_as_columns(places | values | kept))


def _metric_values(
    metrics: Sequence[LogitMetric],
    logits: Logits,
    baseline: Float[Tensor, "batch all_vocab"],
    columns: Tensor | None,
) -> dict[str, PerRow]:
    """Each metric of each row; `columns`: the tokens that the logits cover (None: all)."""
    if columns is not None:
        baseline = baseline[:, columns.to(baseline.device)]
    return {m.name: m.of(logits, baseline=baseline, columns=columns) for m in metrics}


def _as_columns(values: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """Table columns, in float64 so that means over prompts are not rounded again."""
    wide = {name: v.double() if v.is_floating_point() else v for name, v in values.items()}
    return {name: value.cpu().numpy() for name, value in wide.items()}
