"""Self-tests by forward passes: the model, and steering in it, do what they are taken to do."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from saelens_steer.doctor.case import Case
from saelens_steer.doctor.findings import Finding, judged, off
from saelens_steer.doctor.memory import free_bytes, weight_bytes
from saelens_steer.model import checkpoint_of, compare_on, last_token_logits, source_of, tolerance
from saelens_steer.steering import add, plain_directions
from saelens_steer.sweeps import LogitSweep, grid, measure
from saelens_steer.tensors import Mask, Tokens

PADDING = 7
"""Positions of padding that are put before a prompt."""
CHECKPOINT_ROOM = 1.2
"""The checkpoint is loaded again where so many times the model's size is free."""


def parity(case: Case) -> Finding:
    """Logits and residuals of the checkpoint as transformers computes them.

    Where there is no room for it beside the model, the proof that loading has left.
    """
    dtype, source, free = case.model.cfg.dtype, source_of(case.model), free_bytes(case.model)
    allowed = tolerance(dtype)
    if source and free is not None and free < CHECKPOINT_ROOM * weight_bytes(case.model):
        why = "as remembered from loading: no room for the checkpoint beside the model"
        return judged("parity", source.parity.worst(dtype), allowed, why)
    found = compare_on(case.model, checkpoint_of(case.model), *case.batch)
    figure = "worst" if dtype == torch.float32 else "median"
    said = f"as in transformers, {figure} position of {case.described}"
    return judged("parity", found.worst(dtype), allowed, said)


def identity(case: Case) -> Finding:
    """α = 0 changes nothing, and leaves no hook behind."""
    before, hooks = last_token_logits(case.model, *case.batch), _hooks(case.model)
    after = case.under(add(case.own_pushes, 0.0), *case.batch).logits
    left = _hooks(case.model) - hooks
    said = f"{'equal' if torch.equal(before, after) else 'not equal'} bit by bit; {left} hooks left"
    return judged("alpha 0", off(after, before), case.allowed, said, left == 0)


def batches(case: Case) -> Finding:
    """Left-padded rows, each under its own push, against the same rows one by one."""
    together = case.under(add(case.own_pushes), *case.batch)
    rows = [case.under(add(push), *case.alone(row)) for row, push in enumerate(case.own_pushes)]
    alone, positions = torch.cat([row.logits for row in rows]), sum(row.positions for row in rows)
    moved = off(alone, last_token_logits(case.model, *case.batch))
    said = f"logits of a batch as one by one; the push moves them by {moved:.2g}"
    if positions != together.positions:
        said = f"{together.positions} positions are steered in a batch, {positions} one by one"
    worst, holds = off(together.logits, alone), positions == together.positions
    return judged("batches", worst, case.allowed, said, holds)


def padding(case: Case) -> Finding:
    """More padding before a prompt changes neither logits, nor activations, nor what is steered."""
    worst, more = 0.0, 0
    for row, push in enumerate(case.own_pushes):
        bare = case.under(add(push), *case.alone(row))
        padded = case.under(add(push), *_padded(case, row))
        both = off(padded.logits, bare.logits), off(padded.at_hook, bare.at_hook)
        worst, more = max(worst, *both), more + padded.positions - bare.positions
    said = f"logits and activations behind {PADDING} positions of padding"
    if more:
        said = f"{more:+d} positions are steered behind {PADDING} positions of padding"
    return judged("padding", worst, case.allowed, said, more == 0)


def engine(case: Case) -> Finding:
    """Rows of the sweep, from the hook on, against whole passes with a hook, one by one."""
    if why := case.study.ground.why_whole:
        return Finding("engine", f"rows take whole passes with a hook: {why}", "note")
    sweep, worst = _two_directions(case), 0.0
    plan = sweep.plan(range(len(sweep.cells)), whole=False)
    for batch in plan:
        rows = zip(batch.row_cells, batch.row_prompts, strict=True)
        plain = [case.under(add(sweep.pushes([c])[0]), *case.alone(p)).logits for c, p in rows]
        worst = max(worst, off(measure(sweep, False, batch)["logits"], torch.cat(plain)))
    said = f"{sum(map(len, plan))} rows from the hook on as in whole passes with a hook"
    return judged("engine", worst, case.allowed, said)


def _two_directions(case: Case) -> LogitSweep:
    return LogitSweep(
        ground=case.study.ground,
        directions=plain_directions(case.pushes[:2]),
        cells=grid(2, (-1.0, 1.0)),
        metrics=case.study.logit_metrics,
        all_logits=True,
    )


def _padded(case: Case, row: int) -> tuple[Tokens, Mask]:
    """One prompt behind padding, as far as the model has positions."""
    tokens, mask = case.alone(row)
    more = min(PADDING, case.model.cfg.n_ctx - tokens.shape[1])
    pad = case.model.tokenizer.pad_token_id
    return F.pad(tokens, (more, 0), value=pad), F.pad(mask, (more, 0), value=False)


def _hooks(model: Any) -> int:
    """How many hooks are on the model."""
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())
