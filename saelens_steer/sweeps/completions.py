"""Steered completions: rows of different directions and strengths in one left-padded batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch

from saelens_steer.config import GenerateSpec
from saelens_steer.data import pad_left
from saelens_steer.files import digest
from saelens_steer.metrics import TextMetric, code_validity, latex_validity, read_completion
from saelens_steer.model import generate, stop_token_ids
from saelens_steer.steering import Positions, steered
from saelens_steer.sweeps.cells import Cells
from saelens_steer.sweeps.plan import Batch


@dataclass(frozen=True, kw_only=True)
class CompletionSweep(Cells):
    """Everything that decides the completions; cell 0 is the unsteered one, shared by all."""

    metrics: Sequence[TextMetric]
    spec: GenerateSpec
    positions: Positions = "all"
    exclude_special_tokens: bool = False
    max_norm: float | None = None
    seed: int = 0


def completion_rows(sweep: CompletionSweep, batches: Sequence[Batch]) -> pd.DataFrame:
    """Rows of some batches: cell, prompt, sample, completion, truncated, n_tokens, metrics."""
    parts = [
        pd.DataFrame(_batch_rows(sweep, batch, sample))
        for batch in batches
        for sample in range(sweep.spec.samples)
    ]
    return pd.concat(parts, ignore_index=True)


def _batch_rows(sweep: CompletionSweep, batch: Batch, sample: int) -> list[dict[str, Any]]:
    new = _generate(sweep, batch, sample)
    stops = stop_token_ids(sweep.model)
    places = zip(batch.cells, batch.prompts, new.tolist(), strict=True)
    return [
        {"cell": int(cell), "prompt": int(prompt), "sample": sample, **_text(sweep, row, stops)}
        for cell, prompt, row in places
    ]


def _generate(sweep: CompletionSweep, batch: Batch, sample: int) -> torch.Tensor:
    """New tokens [rows, new_pos]; a batch samples from a seed of its own, so order is no matter."""
    rows = [sweep.prompts[p] for p in batch.prompts]
    tokens, mask = pad_left(rows, sweep.model.tokenizer, device=sweep.model.cfg.device)
    place = (sweep.seed, sample, int(batch.cells[0]), int(batch.prompts[0]))
    seed = int(digest(*place), 16) % 2**31
    with steered(
        sweep.model,
        sweep.row_edit(batch),
        sweep.hook_name,
        sweep.positions,
        exclude_special_tokens=sweep.exclude_special_tokens,
        max_norm=sweep.max_norm,
    ):
        return generate(
            sweep.model, tokens, mask, sweep.spec.max_new_tokens, sweep.spec.temperature, seed
        )


def _text(sweep: CompletionSweep, ids: list[int], stops: list[int]) -> dict[str, Any]:
    """One completion, and whether its code and its LaTeX are valid, asked for or not."""
    row = read_completion(sweep.model.tokenizer, ids, stops, sweep.metrics)
    text, truncated = row["completion"], row["truncated"]
    verdicts = {"code": code_validity(text, truncated), "latex": latex_validity(text, truncated)}
    return {**row, **verdicts}
