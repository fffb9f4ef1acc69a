"""Steered completions: rows of different directions and strengths in one batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch

from saelens_steer.config import GenerateSpec
from saelens_steer.files import digest
from saelens_steer.metrics import (
    TextMetric,
    code_validity,
    completion_of,
    latex_validity,
    text_values,
)
from saelens_steer.model import generate, stop_token_ids
from saelens_steer.steering import steered
from saelens_steer.sweeps.cells import Cells
from saelens_steer.sweeps.plan import Batch
from saelens_steer.sweeps.writing import written_tokens


@dataclass(frozen=True, kw_only=True)
class CompletionSweep(Cells):
    """Everything that decides the completions; cell 0 is the unsteered one, shared by all."""

    metrics: Sequence[TextMetric]
    spec: GenerateSpec
    seed: int = 0

    @property
    def _why_whole_here(self) -> str | None:
        return self.ground.why_whole_texts


def completion_rows(sweep: CompletionSweep, batch: Batch) -> pd.DataFrame:
    """Rows of a batch: cell, prompt, sample, completion, truncated, n_tokens."""
    rows = [row for n in range(sweep.spec.samples) for row in _batch_rows(sweep, batch, n)]
    return pd.DataFrame(rows)


def judged(sweep: CompletionSweep, rows: pd.DataFrame) -> pd.DataFrame:
    """Rows with `code` and `latex`, whether they are valid, and with the sweep's metrics."""
    texts = list(zip(rows["completion"], rows["truncated"], strict=True))
    verdicts = {
        "code": [code_validity(text, cut) for text, cut in texts],
        "latex": [latex_validity(text, cut) for text, cut in texts],
    }
    values = pd.DataFrame([text_values(text, cut, sweep.metrics) for text, cut in texts])
    return pd.concat([rows.assign(**verdicts), values.set_index(rows.index)], axis=1)


def _batch_rows(sweep: CompletionSweep, batch: Batch, sample: int) -> list[dict[str, Any]]:
    new = _generate(sweep, batch, sample)
    stops, tokenizer = stop_token_ids(sweep.model), sweep.model.tokenizer
    places = zip(batch.row_cells, batch.row_prompts, new.tolist(), strict=True)
    return [
        {"cell": cell, "prompt": prompt, "sample": sample, **completion_of(tokenizer, row, stops)}
        for cell, prompt, row in places
    ]


def _generate(sweep: CompletionSweep, batch: Batch, sample: int) -> torch.Tensor:
    """New tokens [rows, new_pos]; each row draws from a seed of its own, a batch of whole passes
    from that of its first row."""
    seeds = _seeds(sweep, batch, sample) if sweep.spec.temperature > 0 else [0]
    if sweep.why_whole is None:
        return written_tokens(sweep, batch, sweep.spec, seeds)
    return _through_the_model(sweep, batch, seeds[0])


def _seeds(sweep: CompletionSweep, batch: Batch, sample: int) -> list[int]:
    """A seed for each row, decided by what the row is."""
    cells = {cell: sweep.identity(cell) for cell in batch.cells}
    rows = zip(batch.row_cells, batch.row_prompts, strict=True)
    parts = [(sweep.seed, sample, cells[cell], list(sweep.prompts[p])) for cell, p in rows]
    return [int(digest(*part), 16) % 2**31 for part in parts]


def _through_the_model(sweep: CompletionSweep, batch: Batch, seed: int) -> torch.Tensor:
    """The same through `model.generate` under a steering context."""
    ground, spec = sweep.ground, sweep.spec
    tokens, mask = ground.padded
    width = max(ground.lengths[row] for row in batch.prompts)
    rows = batch.row_prompts
    with steered(
        sweep.model,
        sweep.row_edit(batch),
        ground.hook_name,
        ground.positions,
        exclude_special_tokens=ground.exclude_special_tokens,
        max_norm=ground.max_norm,
    ):
        return generate(
            sweep.model,
            tokens[rows, -width:],
            mask[rows, -width:],
            spec.max_new_tokens,
            spec.temperature,
            seed,
        )
