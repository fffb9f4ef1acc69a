"""Completions of cells × prompts through the plain layers: what rows share is computed once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saelens_steer.config import GenerateSpec
from saelens_steer.data import special_ids
from saelens_steer.model import (
    Place,
    Rows,
    Steer,
    check_length,
    read_prompts,
    stop_token_ids,
    write_on,
)
from saelens_steer.sweeps.cells import Cells
from saelens_steer.sweeps.plan import Batch


def written_tokens(
    cells: Cells, batch: Batch, spec: GenerateSpec, seeds: Sequence[int]
) -> Int[Tensor, "row new_pos"]:
    """New tokens of a batch's rows, padding after a row's stop token; greedy at temperature 0.

    `seeds`: one for each row, at other temperatures.
    """
    ground, model = cells.ground, cells.model
    if spec.max_new_tokens > ground.new_tokens:
        raise ValueError(f"the ground has room for {ground.new_tokens} new tokens a prompt")
    check_length(model, max(ground.lengths) + spec.max_new_tokens)
    upper, place = ground.upper(batch.prompts), Place(ground.start, ground.touched)
    tokens = ground.node_tokens(batch.prompts)
    start = read_prompts(
        model,
        ground.all_layers,
        upper.tree,
        tokens,
        spec.max_new_tokens,
        place,
        lambda x: cells.steer(batch.cells, x, upper.chosen),
    )
    return write_on(
        model,
        ground.all_layers,
        start,
        spec.max_new_tokens,
        stop_token_ids(model),
        model.tokenizer.pad_token_id,
        place,
        _steering(cells, batch),
        _choosing(spec, seeds, ground.device),
    )


def _steering(cells: Cells, batch: Batch) -> Callable[[Rows, Rows], Steer]:
    """What is done where new tokens are read: nothing unless all positions are steered."""
    ground = cells.ground
    change = cells.row_steer(batch)
    prompts = torch.tensor(batch.row_prompts, device=ground.device)
    special = torch.tensor(sorted(special_ids(cells.model.tokenizer)), device=ground.device)

    def steer(rows: Rows, tokens: Rows) -> Steer:
        if ground.positions != "all":
            return lambda x: x
        chosen = torch.ones_like(tokens, dtype=torch.bool)
        if ground.exclude_special_tokens:
            chosen = ~torch.isin(tokens, special)

        def act(x: Tensor) -> Tensor:
            here = chosen
            if ground.limits is not None:
                here = here & (x[0].float().norm(dim=-1) <= ground.limits[prompts[rows]])
            return change(rows, x[0], here)[None]

        return act

    return steer


def _choosing(
    spec: GenerateSpec, seeds: Sequence[int], device: torch.device
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
