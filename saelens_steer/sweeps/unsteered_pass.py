"""The unsteered pass over the prompts, from which every cell of a sweep starts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saelens_steer.activations import keep_ordinary
from saelens_steer.data import pad_left
from saelens_steer.errors import InputError
from saelens_steer.model import (
    EDITABLE,
    EditSite,
    Layer,
    hook_layer,
    hooked_module,
    is_bridge,
    last_token_logits,
    plain_layers,
    resid_to_last,
    run_to_hook,
    tree_of,
    unembed,
    why_not,
)
from saelens_steer.model.model_class import tokenizer_of
from saelens_steer.progress import say
from saelens_steer.steering import Positions, columns, first_tokens, norm_limits, within
from saelens_steer.sweeps.downstream import Downstream
from saelens_steer.sweeps.plan import Batch, prompt_chunks
from saelens_steer.tensors import Logits, Mask, PerRow, Resid, Tokens

PROMPT_BATCH = 16
"""Prompts per pass through the lower layers."""
PROBED = 4
"""Prompts on which the plain layers are compared with the model's."""
KEPT_BYTES = 1 << 31
"""Memory for trees kept between batches: residuals, and keys and values for last tokens."""
TOLERANCE, HALF_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4}, 0.05
"""Largest allowed relative difference between the two, and the same in 16-bit dtypes."""


@dataclass(frozen=True, kw_only=True)
class UnsteeredPass:
    """Prompts, and the hook and positions at which they are steered."""

    model: Any
    hook_name: str
    prompts: Sequence[Sequence[int]]
    """Token ids of each prompt, unpadded."""
    added: Sequence[int] = ()
    """How many tokens at the start of each prompt are never steered; empty if none are."""
    positions: Positions = "all"
    exclude_special_tokens: bool = False
    max_norm: float | None = None
    """Attention sinks, above this multiple of their prompt's median norm, are not steered."""
    whole_passes: bool = False
    """Run full forward passes even if rows could start at the hook."""
    batch_tokens: int = 2048
    """Tokens per batch of rows; part of the packing plan."""
    new_tokens: int = 0
    """The most tokens generated after a prompt."""

    @cached_property
    def padded(self) -> tuple[Tokens, Mask]:
        """All prompts, left-padded: tokens and mask [n_prompts, pos]."""
        cfg = self.model.cfg
        return pad_left(self.prompts, tokenizer_of(self.model), cfg.device, cfg.d_vocab)

    def padded_rows(self, batch: Batch) -> tuple[Tokens, Mask]:
        """The batch's rows, left-padded to its longest prompt: tokens and mask [row, pos]."""
        width, rows = max(self.lengths[p] for p in batch.prompts), batch.row_prompts
        return self.padded[0][rows, -width:], self.padded[1][rows, -width:]

    @property
    def device(self) -> torch.device:
        return torch.device(self.model.cfg.device)

    @cached_property
    def lengths(self) -> list[int]:
        return [len(prompt) for prompt in self.prompts]

    @property
    def full_pass_reason(self) -> str | None:
        """Why rows need full forward passes; None if they start at the hook."""
        return self._tier[1]

    @property
    def padded_reason(self) -> str | None:
        """Why rows are left-padded, for the model's own layers; None if plain layers run them."""
        return self._tier[0]

    @cached_property
    def _tier(self) -> tuple[str | None, str | None]:
        """Why rows cannot use the plain layers, and why not the model's own from the hook on."""
        site = self.site
        full = self._needs_full_passes(min(site.layer, hook_layer(self.hook_name)))
        not_plain = full or self._not_plain(site.layer)
        if not_plain is not None:
            full = full or self._off_at_hook()
        if full is not None:
            say(f"every row of the sweep needs a full forward pass: {full}")
        elif not_plain is not None:
            say(f"rows run through TransformerLens's layers from the hook on: {not_plain}")
        return full or not_plain, full

    @cached_property
    def full_pass_reason_texts(self) -> str | None:
        """Why the model itself generates texts; None if the plain layers do."""
        why = self._needs_full_passes(None) or self._not_plain(0)
        if why is not None:
            say(f"the model itself generates texts: {why}")
        return why

    def _needs_full_passes(self, from_layer: int | None) -> str | None:
        """Why full passes are needed, rather than replacing the layers from `from_layer` on."""
        if self.whole_passes:
            return "full passes were requested"
        if is_bridge(self.model):
            return "a TransformerBridge runs the Hugging Face module as a whole"
        hooked = hooked_module(self.model, from_layer)
        return f"the model has hooks attached, at {hooked}" if hooked else None

    def _not_plain(self, first: int) -> str | None:
        """Why the plain layers from `first` on cannot be used."""
        if self.site.hook not in (None, *EDITABLE):
            return f"{self.hook_name} lies inside attention or the MLP"
        return why_not(self.model) or self._mismatch(first)

    @cached_property
    def site(self) -> EditSite:
        """The layer where steered rows start, and the steered hook if it lies inside that layer."""
        layer, in_block = hook_layer(self.hook_name), self.hook_name.split(".", 2)[2]
        if in_block == "hook_resid_post" and layer + 1 < self.model.cfg.n_layers:
            return EditSite(layer + 1, None)  # resid_post(L) is resid_pre(L + 1)
        return EditSite(layer, None if in_block == "hook_resid_pre" else in_block)

    @cached_property
    def all_layers(self) -> list[Layer]:
        """All layers as plain arithmetic, long enough for prompts and new tokens."""
        return plain_layers(self.model, max(self.lengths) + self.new_tokens)

    @cached_property
    def layers(self) -> list[Layer]:
        """The layers from the one where rows start."""
        if self.new_tokens:
            return self.all_layers[self.site.layer :]
        return plain_layers(self.model, max(self.lengths), self.site.layer)

    @cached_property
    def prefix(self) -> Resid:
        """The unsteered residual where rows start: [n_prompts, pos, d_model], left-padded."""
        return self._read(f"blocks.{self.site.layer}.hook_resid_pre")

    @cached_property
    def limits(self) -> PerRow | None:
        """Each prompt's norm above which positions are attention sinks."""
        if self.max_norm is None:
            return None
        return norm_limits(self._at_hook, self.padded[1], self.max_norm)

    @cached_property
    def _at_hook(self) -> Resid:
        """The unsteered activation at the hook."""
        at_start = self.full_pass_reason is None and self.site.hook is None
        return self.prefix if at_start else self._read(self.hook_name)

    @cached_property
    def chosen(self) -> Mask:
        """The steered positions, [n_prompts, pos].

        Special tokens and attention sinks are found once, in the unsteered pass. Raises InputError
        if a prompt has no steered position.
        """
        tokens, real = self.padded
        width = tokens.shape[1]
        chosen = real & columns(self.positions, width, 0, width).to(real.device)
        if any(self.added):
            counts = torch.tensor(self.added, device=real.device)
            chosen = chosen & ~first_tokens(real, counts)
        if self.exclude_special_tokens:
            chosen = chosen & keep_ordinary(tokens, tokenizer_of(self.model))
        if self.limits is not None:
            chosen = chosen & within(self._at_hook, self.limits)
        if not bool(chosen.any(1).all()):
            raise InputError(
                f"at least one prompt has no steered position with positions: {self.positions}, "
                f"exclude_special_tokens: {self.exclude_special_tokens} and max_norm: "
                f"{self.max_norm}: relax one of them"
            )
        return chosen

    @cached_property
    @torch.no_grad()
    def baseline(self) -> Logits:
        """Unsteered last-token logits [n_prompts, d_vocab], float32."""
        if self.full_pass_reason is not None:
            return torch.cat([last_token_logits(self.model, t, m) for t, m in self._pairs()])
        if self.padded_reason is not None:
            rows = torch.arange(len(self.prompts), device=self.device).split(PROMPT_BATCH)
            return torch.cat([unembed(self.model, self.last_from_hook(some)) for some in rows])
        chunks = prompt_chunks(self.prompts, self.lengths, self.batch_tokens)
        chunked = self.downstream if len(chunks) == 1 else self._downstream
        last = torch.cat([chunked(rows).unsteered() for rows in chunks])
        order = torch.tensor([row for rows in chunks for row in rows])
        return unembed(self.model, last[order.argsort().to(last.device)])

    def last_from_hook(self, rows: Sequence[int] | Tensor) -> Float[Tensor, "row d_model"]:
        """The final residual at the last token of these prompts, by the model's own layers.

        They start at `site.hook_name`, where hooks edit the activation as in a full pass.
        """
        real = self.padded[1][rows]
        width = int(real.sum(1).max())
        prefix = self.prefix[rows][:, -width:]
        return resid_to_last(self.model, prefix, real[:, -width:], self.site.layer)

    def downstream(self, rows: tuple[int, ...]) -> Downstream:
        """These prompts from the hook on; kept for later batches up to KEPT_BYTES."""
        found = self._kept.get(rows) or self._downstream(rows)
        if found.kept_bytes + sum(d.kept_bytes for d in self._kept.values()) <= KEPT_BYTES:
            self._kept[rows] = found
        return found

    @cached_property
    def _kept(self) -> dict[tuple[int, ...], Downstream]:
        return {}

    def _downstream(self, rows: Sequence[int]) -> Downstream:
        which = list(rows)
        return self._over_tree(which, self.chosen[which], self.prefix[which])

    def _over_tree(self, rows: Sequence[int], chosen: Mask, prefix: Resid) -> Downstream:
        """Prompts as one tree; `chosen` and `prefix` are left-padded."""
        starts = [chosen.shape[1] - self.lengths[row] for row in rows]
        marks = [row[at:].tolist() for row, at in zip(chosen.cpu(), starts, strict=True)]
        tree = tree_of([self.prompts[row] for row in rows], marks, self.device)
        place = tree.rows, torch.tensor(starts, device=self.device)[tree.rows] + tree.positions
        return Downstream(
            layers=self.layers,
            tree=tree,
            prefix=prefix[place],
            chosen=chosen[place],
            touched=self.site.hook,
            last_only=self.positions == "last",
        )

    def node_tokens(self, rows: tuple[int, ...]) -> Int[Tensor, " node"]:
        """The token of each node of `downstream(rows)`."""
        tree = self.downstream(rows).tree
        prompts = torch.tensor(rows, device=self.device)[tree.rows]
        lengths = torch.tensor(self.lengths, device=self.device)[prompts]
        tokens = self.padded[0].to(self.device)
        return tokens[prompts, tokens.shape[1] - lengths + tree.positions]

    def _read(self, hook_name: str) -> Resid:
        return torch.cat([run_to_hook(self.model, t, m, hook_name) for t, m in self._pairs()])

    def _pairs(self) -> Iterator[tuple[Tokens, Mask]]:
        tokens, mask = self.padded
        return zip(tokens.split(PROMPT_BATCH), mask.split(PROMPT_BATCH), strict=True)

    @torch.no_grad()
    def _mismatch(self, first: int) -> str | None:
        """How the plain layers from `first` on differ from the model's; None if they agree."""
        rows = self._probed
        (tokens, real), x = (part[rows] for part in self.padded), self.prefix[rows]
        if first != self.site.layer:
            x = run_to_hook(self.model, tokens, real, f"blocks.{first}.hook_resid_pre")
        want = resid_to_last(self.model, x, real, first)
        layers = self.all_layers if first < self.site.layer else self.layers
        found = replace(self._over_tree(rows, real, x), layers=layers).unsteered()
        off = self._off(found, want)
        return off and f"the model's layers differ from plain ones by {off}"

    @torch.no_grad()
    def _off_at_hook(self) -> str | None:
        """How the model's own layers from the hook on differ from full passes; None if not."""
        rows = self._probed
        want = last_token_logits(self.model, *(x[rows] for x in self.padded))
        off = self._off(unembed(self.model, self.last_from_hook(rows)), want)
        return off and f"starting at the hook differs from a full pass by {off}"

    @property
    def _probed(self) -> list[int]:
        """The longest prompts."""
        return sorted(range(len(self.prompts)), key=lambda row: -self.lengths[row])[:PROBED]

    def _off(self, found: Tensor, want: Tensor) -> str | None:
        """The relative difference if it is too large."""
        off = (found.float() - want.float()).norm() / want.float().norm()
        allowed = TOLERANCE.get(self.model.cfg.dtype, HALF_TOLERANCE)
        return None if off <= allowed else f"{float(off):.1g}"
