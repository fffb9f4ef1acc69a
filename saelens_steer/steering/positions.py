"""Which positions an edit touches, with the same meaning with and without a KV cache."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from saelens_steer.errors import InputError
from saelens_steer.tensors import Mask

Positions = Literal["all", "prompt", "generated", "last"]
KINDS: tuple[Positions, ...] = ("all", "prompt", "generated", "last")


def check_positions(positions: str | Mask) -> None:
    """Raise InputError unless `positions` is a known kind or a boolean mask [batch, pos]."""
    if isinstance(positions, Tensor):
        if positions.dtype != torch.bool or positions.ndim != 2:
            raise InputError("positions given as a tensor must be a boolean mask [batch, pos]")
    elif positions not in KINDS:
        raise InputError(
            f"positions must be one of {', '.join(KINDS)} or a mask, not {positions!r}"
        )


def columns(positions: Positions, n_prompt: int, start: int, n_pos: int) -> Bool[Tensor, " pos"]:
    """The steered columns of a pass over absolute positions start … start + n_pos − 1.

    `n_prompt` is the length of the (left-padded) prompt; its last column is the last prompt token.
    """
    absolute = torch.arange(start, start + n_pos)
    if positions == "prompt":
        return absolute < n_prompt
    if positions == "generated":
        return absolute >= n_prompt
    if positions == "last":
        return absolute == n_prompt - 1
    return torch.ones_like(absolute, dtype=torch.bool)


def leading_padding(tokens: Int[Tensor, "batch pos"], pad_id: int | None) -> Mask:
    """True on real tokens: everything from the first token that is not padding."""
    if pad_id is None:
        return torch.ones_like(tokens, dtype=torch.bool)
    return (tokens != pad_id).long().cumsum(1) > 0


class Tracker:
    """Follows the forward passes inside one context and says which entries each one steers.

    The first pass is the prompt. A later one continues it: with a KV cache it brings new positions
    only, without one it repeats the prompt. Anything else raises, since `last` or `generated`
    would then mean something else from pass to pass.
    """

    def __init__(self, positions: str | Mask, pad_id: int | None) -> None:
        check_positions(positions)
        self.positions = positions
        self.pad_id = pad_id
        self.embedded: Tensor | None = None
        """The tokens that entered the embedding last, where that was seen."""
        self.prompt: Tensor | None = None
        self.n_prompt = 0
        self.n_seen = 0
        self.real: Tensor | None = None

    def note_tokens(self, tokens: Tensor) -> None:
        """Remember the tokens [batch, pos] that are being embedded."""
        self.embedded = tokens.detach().cpu()

    def steered(self, batch: int, n_pos: int) -> Mask:
        """The mask [batch, n_pos] of the pass that reached the hook with this shape."""
        fresh = self.n_prompt == 0 or (self.positions == "all" and n_pos > 1)
        start = self._begin(n_pos) if fresh else self._go_on(n_pos)
        self.n_seen = start + n_pos
        return self._within(start, batch, n_pos) & self._real(start, batch, n_pos)

    def _begin(self, n_pos: int) -> int:
        self.n_prompt = n_pos
        seen = self.embedded
        self.prompt = seen if seen is not None and seen.shape[1] == n_pos else None
        self.real = None if self.prompt is None else leading_padding(self.prompt, self.pad_id)
        return 0

    def _go_on(self, n_pos: int) -> int:
        if n_pos == 1 and self.n_seen > 0:
            return self.n_seen
        if n_pos >= self.n_prompt and self._repeats_prompt(n_pos):
            return 0
        raise InputError(
            f"a steering context with positions={self._name()} saw a prompt of {self.n_prompt} "
            f"positions and then an unrelated pass of {n_pos}: open a new context for each prompt"
        )

    def _repeats_prompt(self, n_pos: int) -> bool:
        seen = self.embedded
        if self.prompt is None or seen is None or seen.shape[1] != n_pos:
            return n_pos in (self.n_seen, self.n_seen + 1)
        same_rows = seen.shape[0] == self.prompt.shape[0]
        return same_rows and bool((seen[:, : self.n_prompt] == self.prompt).all())

    def _within(self, start: int, batch: int, n_pos: int) -> Mask:
        if not isinstance(self.positions, Tensor):
            kind: Positions = self.positions  # type: ignore[assignment]
            return columns(kind, self.n_prompt, start, n_pos).expand(batch, n_pos)
        if self.positions.shape[0] != batch or self.positions.shape[1] < self.n_prompt:
            raise InputError(
                f"the positions mask has shape {tuple(self.positions.shape)}, "
                f"the first pass was [{batch}, {self.n_prompt}]"
            )
        given = self.positions.cpu()[:, start : start + n_pos]
        beyond = torch.zeros(batch, n_pos - given.shape[1], dtype=torch.bool)
        return torch.cat([given, beyond], dim=1)

    def _real(self, start: int, batch: int, n_pos: int) -> Mask:
        everything = torch.ones(batch, n_pos, dtype=torch.bool)
        if self.real is None or self.real.shape[0] != batch:
            return everything
        known = self.real[:, start : start + n_pos]
        everything[:, : known.shape[1]] = known
        return everything

    def _name(self) -> str:
        return "mask" if isinstance(self.positions, Tensor) else self.positions
