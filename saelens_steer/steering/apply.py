"""The steering context: the only place that installs steering hooks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from saelens_steer.config import SPLICE_MAX_NORM, plain
from saelens_steer.data import special_ids
from saelens_steer.errors import InputError
from saelens_steer.model import check_editable, check_steerable, flat, generating_with, hook_layer
from saelens_steer.model.model_class import Model, is_bridge, tokenizer_of
from saelens_steer.no_tokenizer import check_tokenizer
from saelens_steer.progress import say_once
from saelens_steer.sae import check_sae
from saelens_steer.steering.edits import Edit, as_edits, of_parts
from saelens_steer.steering.padding import Padding
from saelens_steer.steering.positions import Positions, Tracker, norm_limits, within
from saelens_steer.steering.sae_edits import composed
from saelens_steer.tensors import Mask, PerRow, Resid


@dataclass
class Receipt:
    """What a steering context did, and how strongly."""

    passes: int = 0
    """Forward passes that reached the hook."""
    positions: int = 0
    """(row, position) pairs steered."""
    changed: int = 0
    """Steered pairs whose activation changed; 0 if the feature never fires."""
    rel_norm_sum: float = 0.0

    def __repr__(self) -> str:
        return (
            f"Receipt(passes={self.passes}, positions={self.positions}, changed={self.changed}, "
            f"rel_norm={self.rel_norm:.4g})"
        )

    @property
    def rel_norm(self) -> float:
        """Mean ‖Δx‖ / ‖x‖ over the steered positions."""
        return self.rel_norm_sum / self.positions if self.positions else 0.0

    def note(self, before: Resid, after: Resid, mask: Mask) -> None:
        self.passes += 1
        self.positions += int(mask.sum())
        with torch.no_grad():
            self.changed += int((before != after).any(-1)[mask].sum())
            self.rel_norm_sum += float(relative_norms(before, after)[mask].sum())


def relative_norms(
    before: Float[Tensor, "#batch pos d_model"], after: Resid
) -> Float[Tensor, "batch pos"]:
    """‖x′ − x‖ / ‖x‖ at each position, float32; `before` may broadcast over the batch."""
    size = before.float().norm(dim=-1).clamp_min(torch.finfo(torch.float32).tiny)
    return (after.float() - before.float()).norm(dim=-1) / size


def changes(
    before: Float[Tensor, "#batch pos d_model"], after: Resid
) -> tuple[Float[Tensor, "batch pos"], Mask]:
    """`relative_norms`, and where ‖x′‖ overflows, so that the next norm destroys x′.

    There the first is 0, as 0 · ∞ would spoil sums over other positions.
    """
    lost = ~after.float().norm(dim=-1).isfinite()
    return relative_norms(before, after).masked_fill(lost, 0.0), lost


def row_rel_norm(before: Resid, after: Resid, mask: Mask) -> PerRow:
    """Mean of `relative_norms` over each row's steered positions, [batch]; NaN if one overflows."""
    sizes, lost = changes(before, after)
    mean = (sizes * mask).sum(1) / mask.sum(1).clamp_min(1)
    return mean.masked_fill((lost & mask).any(1), torch.nan)


def edit_where(edits: Sequence[Edit], resid: Resid, mask: Mask) -> Resid:
    """Apply the edits in order at the entries where mask [batch, pos] is True."""
    mask, edited = mask.to(resid.device), resid
    if not all(edit.pointwise for edit in edits):
        for edit in edits:
            edited = edit(edited)
        return torch.where(mask[..., None], edited, resid)
    chosen = resid[mask][None]
    for edit in edits if chosen.numel() else ():
        chosen = edit(chosen)
    edited = resid.clone()
    edited[mask] = chosen[0]
    return edited


@contextlib.contextmanager
def steered(
    model: Model,
    edits: Edit | Sequence[Edit],
    hook_name: str,
    positions: Positions | Mask = "all",
    *,
    exclude_special_tokens: bool = False,
    max_norm: float | Literal["auto"] | None = "auto",
    added: Sequence[int] = (),
) -> Iterator[Receipt]:
    """Steer every forward pass inside the context, and yield a Receipt.

    Edits apply in order; consecutive edits through the same SAE share one encode and decode. Open
    one context per hook. At `attn.hook_z` they act on all heads of a position as one vector.
    `positions`: `all`, `prompt`, `generated`, `last` (the last prompt token), or a boolean mask
    [batch, pos] over the prompt. The first pass is the prompt, with or without a KV cache. Padding
    is never steered: the tokens that the model's attention mask hides or, without one, the padding
    at either end of a row. A positions mask may select any token that no attention mask hides.
    `exclude_special_tokens` skips special tokens; `max_norm` skips attention sinks, positions whose
    norm exceeds this multiple of their prompt's median (auto: 10 if an SAE is spliced in, otherwise
    no limit); `added` skips that many tokens at the start of each row, such as a BOS put before it.
    Raises InputError before any forward pass for an unknown hook or an SAE trained at another hook,
    in a pass whose last tokens are ambiguous, and on exit if the hook was never reached or no
    position was steered. Hooks are removed even after an error.
    """
    check_steerable(model, hook_name)
    with steered_shares(
        model,
        [(slice(None), as_edits("edits", edits))],
        hook_name,
        positions,
        exclude_special_tokens=exclude_special_tokens,
        max_norm=max_norm,
        added=added,
    ) as (receipt,):
        yield receipt


@contextlib.contextmanager
def steered_shares(
    model: Model,
    shares: Sequence[tuple[slice, Sequence[Edit]]],
    hook_name: str,
    positions: Positions | Mask = "all",
    *,
    exclude_special_tokens: bool = False,
    max_norm: float | Literal["auto"] | None = "auto",
    added: Sequence[int] = (),
) -> Iterator[list[Receipt]]:
    """`steered`, with edits for each share of a batch, (rows, edits), and a receipt for each.

    Each share is edited exactly as in a batch of its own. Rows in no share are not edited.
    """
    check_editable(model, hook_name)
    excluded: tuple[int, ...] = ()
    if exclude_special_tokens:
        check_tokenizer(tokenizer_of(model), "exclude_special_tokens=True")
        excluded = tuple(special_ids(tokenizer_of(model)))
    added = added if any(added) else ()
    tracker = Tracker(positions, excluded, Padding.of(tokenizer_of(model)), added)
    held = [_Share(rows, composed(edits), tracker, max_norm) for rows, edits in shares]
    for sae in of_parts([edit for share in held for edit in share.chain])["saes"]:
        check_sae(sae, model, hook_name)

    def hook(given: Tensor, hook: Any) -> Tensor:  # noqa: ARG001 (TransformerLens passes hook=)
        resid = flat(hook_name, given)
        begun = tracker.begun
        mask = tracker.steered(resid.shape[0], resid.shape[1]).to(resid.device)
        if tracker.begun > begun:
            _say_two_bos(model, tracker)
        after = resid.clone()
        for share in held:
            after[share.rows] = share.edited(resid, mask)
        return after.reshape(given.shape)

    def embedding(module: Any, args: tuple[Any, ...]) -> None:  # noqa: ARG001
        _check_still_there(model, hook_name, ours)
        tracker.note_tokens(args[0])
        if (mask := generating_with(model)) is not None:
            tracker.note_stated(mask)

    def called(module: Any, args: tuple[Any, ...], options: dict[str, Any]) -> None:  # noqa: ARG001
        tracker.note_stated(options.get("attention_mask"))

    def masked(module: Any, args: tuple[Any, ...], options: dict[str, Any]) -> None:  # noqa: ARG001
        tracker.note_inferred(options.get("attention_mask"))

    # the embedding sees the tokens of every pass, whatever method started it
    outer: Any = model.original_model if is_bridge(model) else model
    handles = [
        model.embed.register_forward_pre_hook(embedding),
        outer.register_forward_pre_hook(called, with_kwargs=True),
        outer.register_forward_hook(lambda *_: tracker.note_stated(None)),
    ]
    if not is_bridge(model):  # which makes no mask of the ids
        block: Any = model.blocks[hook_layer(hook_name)]
        handles.append(block.register_forward_pre_hook(masked, with_kwargs=True))
    before = _hooks_at(model, hook_name)
    try:
        with model.hooks(fwd_hooks=[(hook_name, hook)]):
            ours = next(h for h in _hooks_at(model, hook_name) if h not in before)
            yield [share.receipt for share in held]
            _check_still_there(model, hook_name, ours)
    finally:
        for handle in handles:
            handle.remove()
    for share in held:
        _check_steered(share.receipt, hook_name, positions)


def _say_two_bos(model: Any, tracker: Tracker) -> None:
    """Say once that a prompt begins with two BOS tokens."""
    bos = getattr(tokenizer_of(model), "bos_token_id", None)
    if bos is not None and tracker.begins_with_two(bos):
        token = tokenizer_of(model).convert_ids_to_tokens(bos)
        say_once(
            tokenizer_of(model),
            f"A steered prompt begins with {token} twice, as happens if both the chat template and "
            "the tokenizer add it: tokenize with add_special_tokens=False.",
        )


def _hooks_at(model: Any, hook_name: str) -> list[Any]:
    """The forward hooks at a hook point now."""
    return list(model.hook_dict[hook_name].fwd_hooks)


def _check_still_there(model: Any, hook_name: str, ours: Any) -> None:
    """InputError once the steering hook is gone, so that no pass silently goes unsteered."""
    if not any(hook is ours for hook in _hooks_at(model, hook_name)):
        raise InputError(
            f"The steering hook at {hook_name} was removed inside the context: call reset_hooks() "
            "before or after the context."
        )


class _Share:
    """Edits of some rows, which leave attention sinks alone, found in each prompt's first pass."""

    def __init__(
        self, rows: slice, chain: list[Edit], tracker: Tracker, max_norm: float | str | None
    ) -> None:
        self.rows, self.chain, self.tracker = rows, chain, tracker
        self.max_norm, self.receipt = _limit(max_norm, chain), Receipt()
        self.prompt = 0
        self.limits: PerRow | None = None

    def edited(self, resid: Resid, mask: Mask) -> Float[Tensor, "share pos d_model"]:
        """These rows of the batch, edited where the mask is True."""
        before, mask = resid[self.rows], mask[self.rows]
        if self.max_norm is not None:
            mask = mask & within(before, self._limits(resid, self.max_norm))
        after = edit_where(self.chain, before, mask)
        self.receipt.note(before, after, mask)
        return after

    def _limits(self, resid: Resid, max_norm: float) -> Float[Tensor, " share"]:
        """Norms above which activations of each row are attention sinks."""
        if self.limits is None or self.prompt != self.tracker.begun:
            real = self.tracker.real_now(*resid.shape[:2]).to(resid.device)
            self.limits = norm_limits(resid[self.rows], real[self.rows], max_norm)
            self.prompt = self.tracker.begun
        return self.limits


def _limit(max_norm: float | str | None, edits: Sequence[Edit]) -> float | None:
    max_norm = plain(max_norm)
    if max_norm == "auto":
        return SPLICE_MAX_NORM if any(edit.splices for edit in edits) else None
    if max_norm is None:
        return None
    if isinstance(max_norm, int | float) and not isinstance(max_norm, bool) and max_norm > 0:
        return float(max_norm)
    raise InputError(f"max_norm must be a positive number, None or 'auto', not {max_norm!r}")


def _check_steered(receipt: Receipt, hook_name: str, positions: Positions | Mask) -> None:
    if receipt.passes == 0:
        raise InputError(f"nothing was steered: no forward pass reached {hook_name}")
    if receipt.positions == 0:
        name = "the positions mask" if isinstance(positions, Tensor) else f"{positions=}"
        raise InputError(f"nothing was steered: {name} selected no position")
