"""Steered completions: written in batches, judged, one row each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from saelens_steer.config import CompletionSpec
from saelens_steer.data import special_ids
from saelens_steer.files import digest
from saelens_steer.metrics import (
    TextMetric,
    code_validity,
    completion_of,
    latex_validity,
    text_values,
)
from saelens_steer.model import (
    EditSite,
    Rows,
    Steer,
    check_length,
    decode,
    generate,
    prefill,
    stop_token_ids,
)
from saelens_steer.steering import steered
from saelens_steer.sweeps.cells import SweepCells
from saelens_steer.sweeps.plan import Batch


def written_tokens(
    cells: SweepCells, batch: Batch, spec: CompletionSpec, seeds: Sequence[int]
) -> Int[Tensor, "row new_pos"]:
    """New tokens of a batch's rows, padding after a row's stop token; greedy at temperature 0.

    `seeds`: one for each row, at other temperatures.
    """
    unsteered_pass, model = cells.unsteered_pass, cells.model
    if spec.max_new_tokens > unsteered_pass.new_tokens:
        raise ValueError(f"room was made for {unsteered_pass.new_tokens} new tokens a prompt")
    check_length(model, max(unsteered_pass.lengths) + spec.max_new_tokens)
    downstream = unsteered_pass.downstream(batch.prompts)
    site = EditSite(unsteered_pass.start, unsteered_pass.touched)
    tokens = unsteered_pass.node_tokens(batch.prompts)
    cache, last = prefill(
        model,
        unsteered_pass.all_layers,
        downstream.tree,
        tokens,
        spec.max_new_tokens,
        site,
        lambda x: cells.steer(batch.cells, x, downstream.chosen),
    )
    return decode(
        model,
        unsteered_pass.all_layers,
        cache,
        last,
        spec.max_new_tokens,
        stop_token_ids(model),
        model.tokenizer.pad_token_id,
        site,
        _steering(cells, batch),
        _choosing(spec, seeds, unsteered_pass.device),
    )


def _steering(cells: SweepCells, batch: Batch) -> Callable[[Rows, Rows], Steer]:
    """What is done where new tokens are read: nothing unless all positions are steered."""
    unsteered_pass = cells.unsteered_pass
    change = cells.row_steer(batch)
    prompts = torch.tensor(batch.row_prompts, device=unsteered_pass.device)
    special = torch.tensor(sorted(special_ids(cells.model.tokenizer)), device=unsteered_pass.device)

    def steer(rows: Rows, tokens: Rows) -> Steer:
        if unsteered_pass.positions != "all":
            return lambda x: x
        chosen = torch.ones_like(tokens, dtype=torch.bool)
        if unsteered_pass.exclude_special_tokens:
            chosen = ~torch.isin(tokens, special)

        def act(x: Tensor) -> Tensor:
            here = chosen
            if unsteered_pass.limits is not None:
                here = here & (x[0].float().norm(dim=-1) <= unsteered_pass.limits[prompts[rows]])
            return change(rows, x[0], here)[None]

        return act

    return steer


def _choosing(
    spec: CompletionSpec, seeds: Sequence[int], device: torch.device
) -> Callable[[Tensor, Rows, int], Rows]:
    """The most likely token, or a draw that does not depend on what else is in the batch."""
    if spec.temperature == 0:
        return lambda logits, rows, step: logits.argmax(-1)  # noqa: ARG005
    draws = [_uniform(seed, spec.max_new_tokens) for seed in seeds]
    uniform = torch.stack(draws).to(device)

    def draw(logits: Tensor, rows: Rows, step: int) -> Rows:
        mass = (logits.double() / spec.temperature).softmax(-1).cumsum(-1)
        below = mass < (uniform[rows, step] * mass[:, -1])[:, None]
        return below.sum(-1).clamp(max=logits.shape[1] - 1)

    return draw


def _uniform(seed: int, n: int) -> Float[Tensor, " n"]:
    return torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@dataclass(frozen=True, kw_only=True)
class CompletionSweep(SweepCells):
    """Everything that decides the completions; cell 0 is the unsteered one, shared by all."""

    metrics: Sequence[TextMetric]
    spec: CompletionSpec
    seed: int = 0

    @property
    def _why_whole_here(self) -> str | None:
        return self.unsteered_pass.why_whole_texts


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
    unsteered_pass, spec = sweep.unsteered_pass, sweep.spec
    tokens, mask = unsteered_pass.padded
    width = max(unsteered_pass.lengths[row] for row in batch.prompts)
    rows = batch.row_prompts
    with steered(
        sweep.model,
        sweep.row_edit(batch),
        unsteered_pass.hook_name,
        unsteered_pass.positions,
        exclude_special_tokens=unsteered_pass.exclude_special_tokens,
        max_norm=unsteered_pass.max_norm,
    ):
        return generate(
            sweep.model,
            tokens[rows, -width:],
            mask[rows, -width:],
            spec.max_new_tokens,
            spec.temperature,
            seed,
        )
