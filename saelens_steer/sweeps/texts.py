"""Steered completions: generated in batches, kept in shards and scored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from saelens_steer.config import CompletionSpec
from saelens_steer.data import Encoded, check_ids, special_ids
from saelens_steer.errors import InputError
from saelens_steer.files import digest
from saelens_steer.metrics import (
    TextMetric,
    code_validity,
    completion_of,
    latex_validity,
    text_values,
)
from saelens_steer.model import (
    Rows,
    Steer,
    check_length,
    decode,
    generate,
    padding_id,
    prefill,
    stop_token_ids,
)
from saelens_steer.model.model_class import tokenizer_of
from saelens_steer.progress import Note, unnoted
from saelens_steer.steering import steered
from saelens_steer.sweeps.cells import SweepCells
from saelens_steer.sweeps.plan import Batch, BatchSplitter, batches
from saelens_steer.sweeps.store import NO_STORE, Store

COMPLETION_BATCH_FACTOR = 8
"""Generation runs one token at a time, so its batches hold this multiple of `batch_tokens`."""
NewTokens = Int[Tensor, "row new_pos"]


def check_room(
    model: Any, encoded: Sequence[Encoded], new_tokens: int, key: str = "max_new_tokens"
) -> None:
    """Raise InputError unless the model can read each prompt and continue it by new_tokens.

    `key`: what states their number.
    """
    check_ids(encoded, model.cfg.d_vocab)
    longest, n_ctx = max(encoded, key=lambda e: len(e.head)), model.cfg.n_ctx
    if len(longest.head) + new_tokens <= n_ctx:
        return
    has = f"prompt {longest.prompt.id!r} has {len(longest.head)} tokens"
    if not new_tokens:
        raise InputError(f"{has}, more than the model's n_ctx ({n_ctx}): shorten it")
    raise InputError(
        f"{has}, and {key} ({new_tokens}) more would exceed the model's n_ctx ({n_ctx}): shorten "
        "the prompt or lower that number"
    )


@dataclass(frozen=True, kw_only=True)
class CompletionSweep(SweepCells):
    """Everything that determines the completions; cell 0 is unsteered, shared by all directions."""

    metrics: Sequence[TextMetric]
    spec: CompletionSpec
    seed: int = 0

    @property
    def _pass_reason(self) -> str | None:
        return self.unsteered_pass.full_pass_reason_texts


def run_completions(
    sweep: CompletionSweep,
    store: Store = NO_STORE,
    splitter: BatchSplitter | None = None,
    note: Note = unnoted,
) -> pd.DataFrame:
    """Generate and score a completion of every cell × prompt; each batch is a shard.

    Columns: cell, prompt, sample, completion, truncated, n_tokens, and those of `judged`.
    """
    splitter, frames = splitter or BatchSplitter(), []
    sizes = [n + sweep.spec.max_new_tokens for n in sweep.unsteered_pass.lengths]
    budget = COMPLETION_BATCH_FACTOR * sweep.unsteered_pass.batch_tokens
    for batch in batches(range(len(sweep.cells)), sweep.prompts, budget, sizes, padded=True):
        name = digest(sweep.identities(batch.cells), batch.prompts)
        rows = store.frame(name, partial(_written, sweep, batch, splitter))
        note(len(rows))
        cells = [batch.cells[place] for place in rows["cell"]]
        frames.append(rows.assign(cell=cells))
    return judged(sweep, pd.concat(frames, ignore_index=True))


def judged(sweep: CompletionSweep, rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with validity of code and LaTeX (`code`, `latex`) and the sweep's metrics."""
    ends = [None if pd.isna(cut) else bool(cut) for cut in rows["truncated"]]
    texts = list(zip(rows["completion"], ends, strict=True))
    verdicts = {
        "code": [code_validity(text, cut is not False) for text, cut in texts],
        "latex": [latex_validity(text, cut is not False) for text, cut in texts],
    }
    values = pd.DataFrame([text_values(text, cut, sweep.metrics) for text, cut in texts])
    return pd.concat([rows.assign(**verdicts), values.set_index(rows.index)], axis=1)


def _written(sweep: CompletionSweep, batch: Batch, splitter: BatchSplitter) -> pd.DataFrame:
    """A batch's completions, with cells numbered from 0."""
    parts = splitter.run(batch, partial(write_batch, sweep))
    rows = pd.concat(parts, ignore_index=True)
    return rows.assign(cell=[batch.cells.index(cell) for cell in rows["cell"]])


def write_batch(sweep: CompletionSweep, batch: Batch) -> pd.DataFrame:
    """Rows of a batch: cell, prompt, sample, completion, truncated, n_tokens."""
    write = _from_hook if sweep.full_pass_reason is None else _through_the_model
    stops, tokenizer, rows = stop_token_ids(sweep.model), tokenizer_of(sweep.model), []
    for sample in range(sweep.spec.samples):
        new = write(sweep, batch, _seeds(sweep, batch, sample)).tolist()
        for cell, prompt, ids in zip(batch.row_cells, batch.row_prompts, new, strict=True):
            about = {"cell": cell, "prompt": prompt, "sample": sample}
            rows.append(about | completion_of(tokenizer, ids, stops))
    return pd.DataFrame(rows)


def _seeds(sweep: CompletionSweep, batch: Batch, sample: int) -> list[int]:
    """A seed for each row, derived from its content; 0 at temperature 0."""
    if sweep.spec.temperature == 0:
        return [0] * len(batch)
    cells = dict(zip(batch.cells, sweep.identities(batch.cells), strict=True))
    rows = zip(batch.row_cells, batch.row_prompts, strict=True)
    parts = [(sweep.seed, sample, cells[cell], list(sweep.prompts[p])) for cell, p in rows]
    return [int(digest(*part), 16) % 2**31 for part in parts]


def _through_the_model(sweep: CompletionSweep, batch: Batch, seeds: Sequence[int]) -> NewTokens:
    """Generate with the model itself inside a steering context, from the first row's seed."""
    unsteered_pass, spec = sweep.unsteered_pass, sweep.spec
    tokens, mask = unsteered_pass.padded_rows(batch)
    with steered(
        sweep.model,
        sweep.row_edit(batch),
        unsteered_pass.hook_name,
        unsteered_pass.positions,
        exclude_special_tokens=unsteered_pass.exclude_special_tokens,
        max_norm=unsteered_pass.max_norm,
        added=[unsteered_pass.added[p] for p in batch.row_prompts] if unsteered_pass.added else (),
    ):
        return generate(sweep.model, tokens, mask, spec.max_new_tokens, spec.temperature, seeds[:1])


def _from_hook(sweep: CompletionSweep, batch: Batch, seeds: Sequence[int]) -> NewTokens:
    """Generate with the plain layers, padding after stop tokens; each row has its own seed."""
    unsteered_pass, model, n_tokens = sweep.unsteered_pass, sweep.model, sweep.spec.max_new_tokens
    if n_tokens > unsteered_pass.new_tokens:
        raise ValueError(
            f"this pass has room for {unsteered_pass.new_tokens} new tokens per prompt"
        )
    check_length(model, max(unsteered_pass.lengths) + n_tokens)
    downstream, site = unsteered_pass.downstream(batch.prompts), unsteered_pass.site
    cache, last = prefill(
        model,
        unsteered_pass.all_layers,
        downstream.tree,
        unsteered_pass.node_tokens(batch.prompts),
        n_tokens,
        site,
        lambda x: sweep.steer(batch.cells, x, downstream.chosen),
    )
    return decode(
        model,
        unsteered_pass.all_layers,
        cache,
        last,
        n_tokens,
        stop_token_ids(model),
        padding_id(model),
        site,
        _steering(sweep, batch),
        _choosing(sweep.spec, seeds, unsteered_pass.device),
    )


def _steering(sweep: CompletionSweep, batch: Batch) -> Callable[[Rows, Rows], Steer]:
    """How new tokens are steered as they are read; only `positions: all` steers them."""
    unsteered_pass = sweep.unsteered_pass
    change = sweep.row_steer(batch)
    prompts = torch.tensor(batch.row_prompts, device=unsteered_pass.device)
    special_tokens = sorted(special_ids(tokenizer_of(sweep.model)))
    special = torch.tensor(special_tokens, device=unsteered_pass.device)

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
    """Pick the most likely token, or draw one independently of the other rows in the batch."""
    if spec.temperature == 0:
        return lambda logits, rows, step: logits.argmax(-1)  # noqa: ARG005
    uniform = torch.stack([_uniform(seed, spec.max_new_tokens) for seed in seeds]).to(device)

    def draw(logits: Tensor, rows: Rows, step: int) -> Rows:
        mass = (logits.double() / spec.temperature).softmax(-1).cumsum(-1)
        below = mass < (uniform[rows, step] * mass[:, -1])[:, None]
        return below.sum(-1).clamp(max=logits.shape[1] - 1)

    return draw


def _uniform(seed: int, n: int) -> Float[Tensor, " n"]:
    return torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
