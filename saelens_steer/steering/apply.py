"""The one place that installs steering hooks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from saelens_steer.errors import InputError
from saelens_steer.model import check_editable
from saelens_steer.steering.edits import Edit
from saelens_steer.steering.positions import Positions, Tracker
from saelens_steer.tensors import Mask, PerRow, Resid


@dataclass
class Receipt:
    """What a steering context did: proof that it steered, and how hard."""

    passes: int = 0
    """Forward passes that reached the hook."""
    positions: int = 0
    """(row, position) pairs steered."""
    rel_norm_sum: float = 0.0

    @property
    def rel_norm(self) -> float:
        """Mean ‖Δx‖ / ‖x‖ over the steered positions."""
        return self.rel_norm_sum / self.positions if self.positions else 0.0

    def note(self, before: Resid, after: Resid, mask: Mask) -> None:
        """Count one pass."""
        self.passes += 1
        self.positions += int(mask.sum())
        with torch.no_grad():
            self.rel_norm_sum += float(relative_norms(before, after)[mask].sum())


def relative_norms(before: Resid, after: Resid) -> Tensor:
    """‖x′ − x‖ / ‖x‖ at each position: [batch, pos], float32."""
    size = before.float().norm(dim=-1).clamp_min(torch.finfo(torch.float32).tiny)
    return (after.float() - before.float()).norm(dim=-1) / size


def row_rel_norm(before: Resid, after: Resid, mask: Mask) -> PerRow:
    """The mean of `relative_norms` over each row's steered positions: [batch]."""
    return (relative_norms(before, after) * mask).sum(1) / mask.sum(1).clamp_min(1)


def edit_where(edits: Sequence[Edit], resid: Resid, mask: Mask) -> Resid:
    """Apply the edits in order to the entries where mask [batch, pos] is True."""
    edited = resid
    for edit in edits:
        edited = edit(edited)
    return torch.where(mask.to(resid.device)[..., None], edited, resid)


@contextlib.contextmanager
def steered(
    model: Any,
    edits: Edit | Sequence[Edit],
    hook_name: str,
    positions: Positions | Mask = "all",
) -> Iterator[Receipt]:
    """Steer every forward pass inside the context; several edits act in the order given.

    `positions` are absolute: `all`, `prompt`, `generated`, `last` (the last prompt token), or a
    boolean mask [batch, pos] over the left-padded prompt; the prompt is what the first pass saw,
    with and without a KV cache. Padding is never steered. Yields a Receipt. Raises InputError for
    an unknown hook before any forward pass, and at the end if the hook was never reached or no
    position was steered. The hooks are gone afterwards, after an error too.
    """
    check_editable(model, hook_name)
    chain = [edits] if isinstance(edits, Edit) else list(edits)
    receipt, tracker = Receipt(), Tracker(positions, _pad_id(model))

    def hook(resid: Resid, hook: Any) -> Resid:  # noqa: ARG001 (TransformerLens passes hook=)
        mask = tracker.steered(resid.shape[0], resid.shape[1]).to(resid.device)
        after = edit_where(chain, resid, mask)
        receipt.note(resid, after, mask)
        return after

    # every call of the embedding, wherever it comes from, shows the tokens that are being read
    handle = model.embed.register_forward_pre_hook(lambda _, args: tracker.note_tokens(args[0]))
    try:
        with model.hooks(fwd_hooks=[(hook_name, hook)]):
            yield receipt
    finally:
        handle.remove()
    _check_steered(receipt, hook_name, positions)


def _pad_id(model: Any) -> int | None:
    return getattr(model.tokenizer, "pad_token_id", None)


def _check_steered(receipt: Receipt, hook_name: str, positions: Positions | Mask) -> None:
    if receipt.passes == 0:
        raise InputError(f"nothing was steered: no forward pass reached {hook_name}")
    if receipt.positions == 0:
        name = "the mask" if isinstance(positions, Tensor) else positions
        raise InputError(f"nothing was steered: no position was selected by {name}")
