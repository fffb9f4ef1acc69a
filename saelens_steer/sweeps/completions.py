"""Steered completions: rows of different directions and strengths in one batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch

from saelens_steer.config import GenerateSpec
from saelens_steer.files import digest
from saelens_steer.metrics import TextMetric, code_validity, latex_validity, read_completion
from saelens_steer.model import generate, stop_token_ids
from saelens_steer.steering import steered
from saelens_steer.sweeps.cells import Cells
from saelens_steer.sweeps.plan import Batch
from saelens_steer.sweeps.writing import written_tokens


@dataclass(frozen=True, kw_only=True)
class CompletionSweep(Cells):
    """Everything that decides the completions; cell 0 is the unsteered one, shared by all."""

    metrics: tuple[TextMetric, ...] | list[TextMetric]
    spec: GenerateSpec
    seed: int = 0


def completion_rows(sweep: CompletionSweep, batch: Batch) -> pd.DataFrame:
    """Rows of a batch: cell, prompt, sample, completion, truncated, n_tokens, metrics."""
    rows = [row for n in range(sweep.spec.samples) for row in _batch_rows(sweep, batch, n)]
    return pd.DataFrame(rows)


def _batch_rows(sweep: CompletionSweep, batch: Batch, sample: int) -> list[dict[str, Any]]:
    new = _generate(sweep, batch, sample)
    stops = stop_token_ids(sweep.model)
    places = zip(batch.row_cells, batch.row_prompts, new.tolist(), strict=True)
    return [
        {"cell": cell, "prompt": prompt, "sample": sample, **_text(sweep, row, stops)}
        for cell, prompt, row in places
    ]


def _generate(sweep: CompletionSweep, batch: Batch, sample: int) -> torch.Tensor:
    """New tokens [rows, new_pos]; a batch samples from a seed of its own, so order is no matter."""
    first, prompt = sweep.identity(batch.cells[0]), sweep.prompts[batch.prompts[0]]
    seed = int(digest(sweep.seed, sample, first, list(prompt)), 16) % 2**31
    if sweep.why_whole is None:
        return written_tokens(sweep, batch, sweep.spec, seed)
    return _through_the_model(sweep, batch, seed)


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


def _text(sweep: CompletionSweep, ids: list[int], stops: list[int]) -> dict[str, Any]:
    """One completion, and whether its code and its LaTeX are valid, asked for or not."""
    row = read_completion(sweep.model.tokenizer, ids, stops, sweep.metrics)
    text, truncated = row["completion"], row["truncated"]
    verdicts = {"code": code_validity(text, truncated), "latex": latex_validity(text, truncated)}
    return {**row, **verdicts}
