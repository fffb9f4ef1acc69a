"""Which positions an edit acts on, the same with and without a KV cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Bool
from torch import Tensor

from saelens_steer.errors import InputError
from saelens_steer.steering.padding import (
    Padding,
    begins_with_two,
    first_tokens,
    last_tokens,
    real_tokens,
)
from saelens_steer.tensors import Mask, PerRow, Resid

Positions = Literal["all", "prompt", "generated", "last"]
KINDS: tuple[Positions, ...] = ("all", "prompt", "generated", "last")


def check_positions(positions: str | Mask) -> None:
    """Raise InputError unless `positions` is a known kind or a boolean mask [batch, pos]."""
    if isinstance(positions, Tensor):
        if positions.dtype != torch.bool or positions.ndim != 2:
            raise InputError("positions given as a tensor must be a boolean mask [batch, pos]")
    elif not isinstance(positions, str) or positions not in KINDS:
        given = repr(positions) if isinstance(positions, str) else type(positions).__name__
        raise InputError(
            f"positions must be {', '.join(KINDS)} or a boolean tensor [batch, pos], not {given}"
        )


def columns(positions: Positions, n_prompt: int, start: int, n_pos: int) -> Bool[Tensor, " pos"]:
    """Steered columns of a pass over absolute positions start … start + n_pos − 1.

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


def norm_limits(resid: Resid, real: Mask, max_norm: float) -> PerRow:
    """Norms above which positions are attention sinks: `max_norm` × each row's median over `real`.

    The limit is per row, so that batched and single rows agree.
    """
    norms = resid.float().norm(dim=-1).masked_fill(~real, torch.nan)
    return max_norm * norms.nanmedian(dim=1).values


def within(resid: Resid, limits: PerRow) -> Mask:
    """False on attention sinks."""
    return resid.float().norm(dim=-1) <= limits.to(resid.device)[:, None]


def _window(
    prompt: Bool[Tensor, "batch prompt"], start: int, n_pos: int, *, beyond: bool
) -> Bool[Tensor, "batch now"]:
    """Columns start … start + n_pos − 1 of a mask over the prompt, `beyond` after its end."""
    found = prompt[:, start : start + n_pos]
    after = torch.full((len(prompt), n_pos - found.shape[1]), beyond)
    return torch.cat([found, after], dim=1)


def _plain(mask: Tensor | None) -> Mask | None:
    """A boolean copy on the CPU of a mask [batch, pos]; None for one of any other shape."""
    return None if mask is None or mask.ndim != 2 else mask.detach().cpu().bool()


class Tracker:
    """Follows the forward passes inside a context and decides which entries each one steers.

    The first pass is the prompt. A later pass continues it, with the new positions only (KV cache)
    or from the start (no cache). Any other pass begins a new prompt if all positions are steered;
    otherwise it raises, since the meaning of `last` or `generated` would change.
    """

    def __init__(
        self,
        positions: str | Mask,
        excluded: tuple[int, ...] = (),
        padding: Padding = Padding(None),  # noqa: B008 (frozen)
        added: Sequence[int] = (),
    ) -> None:
        """`excluded`: token ids that are never steered, such as special tokens. `added`: how many
        tokens at the start of each row are never steered."""
        check_positions(positions)
        self.positions, self.padding = positions, padding
        self.added = torch.tensor(added, dtype=torch.long)
        self.excluded = torch.tensor(excluded, dtype=torch.long)
        self.read: Tensor | None = None
        """The tokens read so far, [batch, pos]. Single tokens are appended, since HookedTransformer
        embeds only the new token when it generates, with and without a cache."""
        self.noted = False
        """Whether the current pass began with an embedding of tokens."""
        self.stated: Mask | None = None
        """The attention mask that the caller of the current pass stated, if any."""
        self.inferred: Mask | None = None
        """The attention mask that the model made of the padding ids, if it did."""
        self.prompt: Tensor | None = None
        self.n_prompt = 0
        self.n_seen = 0
        self.begun = 0
        """Number of prompts begun."""
        self.real: Tensor | None = None
        """False on the padding of the prompt; None if nothing tells."""
        self.attended: Tensor | None = None
        """False where the prompt's attention mask hides a token; None without a mask."""

    def note_tokens(self, tokens: Tensor) -> None:
        """Record the tokens [batch, pos] being embedded."""
        new, read = tokens.detach().cpu(), self.read
        grows = read is not None and new.shape == (read.shape[0], 1)
        self.read = torch.cat([read, new], dim=1) if read is not None and grows else new
        self.noted, self.inferred = True, None

    def note_stated(self, mask: Tensor | None) -> None:
        """Record the attention mask [batch, pos] that the caller states; others are ignored."""
        self.stated = _plain(mask)

    def note_inferred(self, mask: Tensor | None) -> None:
        """Record the attention mask [batch, pos] that the model uses; others are ignored."""
        self.inferred = _plain(mask)

    def _tokens(self, batch: int, n_pos: int) -> Tensor | None:
        """The tokens [batch, n_pos] of the current pass; None if it did not begin with tokens."""
        if self.read is None or not self.noted or self.read.shape[0] != batch:
            return None
        if n_pos == 1:
            return self.read[:, -1:]
        return self.read if self.read.shape[1] == n_pos else None

    def steered(self, batch: int, n_pos: int) -> Mask:
        """The mask [batch, n_pos] of the pass that has just reached the hook."""
        tokens = self._tokens(batch, n_pos)
        start = self._start(n_pos, tokens)
        self.n_seen = start + n_pos
        shown = self.attended if isinstance(self.positions, Tensor) else self.real
        chosen = self._chosen(start, batch, n_pos) & self._now(shown, batch, n_pos)
        if len(self.added):
            chosen = chosen & ~self._added_now(start, batch, n_pos)
        if len(self.excluded):
            chosen = chosen & self._not_excluded(tokens)
        self.noted, self.stated, self.inferred = False, None, None  # no other pass inherits them
        return chosen

    def _added_now(self, start: int, batch: int, n_pos: int) -> Mask:
        """True on the tokens at the start of each row that are never steered."""
        if len(self.added) != batch:
            raise ValueError(f"expected {len(self.added)} rows, not {batch}")
        real = (
            torch.ones(batch, self.n_prompt, dtype=torch.bool) if self.real is None else self.real
        )
        return _window(first_tokens(real, self.added), start, n_pos, beyond=False)

    def real_now(self, batch: int, n_pos: int) -> Mask:
        """False on the padding of the pass last given to `steered`."""
        return self._now(self.real, batch, n_pos)

    def _now(self, prompt: Tensor | None, batch: int, n_pos: int) -> Mask:
        """A mask over the prompt at the columns of the current pass, True after its end."""
        if prompt is None or prompt.shape[0] != batch:
            return torch.ones(batch, n_pos, dtype=torch.bool)
        return _window(prompt, self.n_seen - n_pos, n_pos, beyond=True)

    def begins_with_two(self, bos: int) -> bool:
        """Whether a row of the prompt begins with two BOS tokens."""
        if self.prompt is None or self.real is None:
            return False
        return begins_with_two(self.prompt, self.real, bos)

    def _start(self, n_pos: int, tokens: Tensor | None) -> int:
        """The absolute position at which this pass begins."""
        if self.n_prompt == 0:
            return self._begin(n_pos, tokens)
        if n_pos == 1 and self.n_seen > 0:
            return self.n_seen
        if n_pos >= self.n_prompt and self._repeats_prompt(n_pos, tokens):
            return 0
        if self._everywhere:
            return self._begin(n_pos, tokens)
        name = "mask" if isinstance(self.positions, Tensor) else self.positions
        raise InputError(
            f"a steering context with positions={name} saw a prompt of {self.n_prompt} "
            f"positions and then an unrelated pass of {n_pos}: open a new context for each prompt"
        )

    def _begin(self, n_pos: int, tokens: Tensor | None) -> int:
        self.n_prompt = n_pos
        self.begun += 1
        self.prompt = tokens
        stated, inferred = (
            mask if mask is not None and mask.shape[1] == n_pos else None
            for mask in (self.stated, self.inferred)
        )
        self.attended = self.real = inferred if stated is None else stated
        if stated is None and tokens is not None:
            ends_matter = isinstance(self.positions, str) and self.positions == "last"
            self.real = real_tokens(tokens, self.padding, inferred, ends_matter)
        return 0

    def _repeats_prompt(self, n_pos: int, tokens: Tensor | None) -> bool:
        if self.prompt is None or tokens is None:
            return not self._everywhere and n_pos in (self.n_seen, self.n_seen + 1)
        same_rows = tokens.shape[0] == self.prompt.shape[0]
        return same_rows and bool((tokens[:, : self.n_prompt] == self.prompt).all())

    def _chosen(self, start: int, batch: int, n_pos: int) -> Mask:
        if not isinstance(self.positions, Tensor):
            kind: Positions = self.positions  # type: ignore[assignment]
            if kind == "last" and self.real is not None and self.real.shape[0] == batch:
                return _window(last_tokens(self.real), start, n_pos, beyond=False)
            return columns(kind, self.n_prompt, start, n_pos).expand(batch, n_pos)
        if self.positions.shape[0] != batch or self.positions.shape[1] < self.n_prompt:
            raise InputError(
                f"the positions mask has shape {tuple(self.positions.shape)}, "
                f"but the first pass was [{batch}, {self.n_prompt}]"
            )
        return _window(self.positions.cpu(), start, n_pos, beyond=False)

    def _not_excluded(self, tokens: Tensor | None) -> Mask:
        if tokens is None:
            raise InputError(
                "special tokens can only be excluded in a pass that starts from tokens: "
                "pass a positions mask instead"
            )
        return ~torch.isin(tokens, self.excluded)

    @property
    def _everywhere(self) -> bool:
        return isinstance(self.positions, str) and self.positions == "all"
