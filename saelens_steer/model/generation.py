"""Batched generation from left-padded prompts, through `model.generate` of either class."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Int
from torch import Tensor
from torch.overrides import TorchFunctionMode

from saelens_steer.errors import InputError
from saelens_steer.model.forward import check_length
from saelens_steer.model.model_class import Model, is_bridge, tokenizer_of
from saelens_steer.model.provenance import origin_of
from saelens_steer.model.tokenizer import stop_ids
from saelens_steer.tensors import Mask, Tokens

UNDEFINED = -1
"""In place of a token whose residual overflowed, so that the model says nothing."""
_GENERATING: WeakKeyDictionary[Any, Mask] = WeakKeyDictionary()


def generating_with(model: Model) -> Mask | None:
    """The mask over the prompts that `generate` is continuing now; None outside of it.

    A HookedTransformer does not tell its hooks: it has no argument for the mask.
    """
    return _GENERATING.get(model)


def stop_token_ids(model: Model) -> list[int]:
    """Tokens that end a completion: the tokenizer's EOS and others that the checkpoint names.

    Empty if neither names one: completions then end at their length limit.
    """
    if origin := origin_of(model):
        return list(origin.stop_ids)
    return list(stop_ids(getattr(model, "original_model", None), tokenizer_of(model)))


@torch.no_grad()
def generate(
    model: Model,
    tokens: Tokens,
    mask: Mask,
    max_new_tokens: int,
    temperature: float = 0.0,
    seeds: Sequence[int] = (),
) -> Int[Tensor, "batch new_pos"]:
    """The new tokens that continue left-padded prompts, padded after each row's stop token.

    Greedy at temperature 0. Stops early once every row has; a row without a stop token was cut off
    at max_new_tokens, or has UNDEFINED where its residual overflowed. With several seeds, the rows
    are as many equal parts, each of which draws as in a batch of its own. Sampling with seeds
    leaves torch's global random state unchanged. Hooks on the model see the whole prompt first,
    then one position at a time (KV cache).
    """
    check_length(model, tokens.shape[1] + max_new_tokens)
    _check_left_padded(mask)
    stops, run = stop_token_ids(model), cast(Any, model).generate
    seeds = seeds if temperature > 0 else seeds[:1]
    seeded, lost = _seeded(seeds, tokens.device), list[Tensor]()
    with seeded, _overflowing(model, lost), _mask_kept(model, tokens, mask) as (prompt, options):
        out = run(
            prompt,
            max_new_tokens=max_new_tokens,
            stop_at_eos=bool(stops),
            eos_token_id=stops or None,
            do_sample=temperature > 0,
            temperature=temperature or 1.0,
            prepend_bos=False,
            return_type="tokens",
            verbose=False,
            **options,
        )
    new = _pad_after_stop(out[:, tokens.shape[1] :], stops, padding_id(model))
    return _without_lost(new, lost)


@contextlib.contextmanager
def _overflowing(model: Model, lost: list[Tensor]) -> Iterator[None]:
    """Add to `lost`, for each pass, the rows whose last residual overflows; they continue from 0.

    Sampling from their logits, which are NaN, would end the whole batch with an error.
    """

    def look(resid: torch.Tensor, hook: Any) -> torch.Tensor:  # noqa: ARG001 (passed as hook=)
        rows = ~resid[:, -1].float().norm(dim=-1).isfinite()
        lost.append(rows)
        return torch.where(rows[:, None, None], 0.0, resid) if bool(rows.any()) else resid

    name = f"blocks.{model.cfg.n_layers - 1}.hook_resid_post"
    with model.hooks(fwd_hooks=[(name, look)] if name in model.hook_dict else []):
        yield


def _without_lost(new: Int[Tensor, "batch new_pos"], lost: list[Tensor]) -> Tensor:
    """UNDEFINED from the first pass on in which a row's residual overflowed."""
    if not any(bool(rows.any()) for rows in lost):
        return new
    passes = torch.stack(lost, dim=1)[:, : new.shape[1]].long().cumsum(dim=1) > 0
    return new.masked_fill(passes.to(new.device), UNDEFINED)


def padding_id(model: Model) -> int:
    """The id of padding, inside the embedding: the tokenizer's, else its EOS, else 0."""
    tokenizer: Any = tokenizer_of(model)
    ids = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
    return next(i for i in ids if i is not None and i < model.cfg.d_vocab)


def _check_left_padded(mask: Mask) -> None:
    """InputError if a row has padding after a token, or nothing but padding."""
    padded_later = (mask.long().diff(dim=1) < 0).any()
    if bool(padded_later) or not bool(mask[:, -1].all()):
        raise InputError("Prompts must be left-padded: put padding before the first token only.")


@contextlib.contextmanager
def _mask_kept(model: Model, tokens: Tokens, mask: Mask) -> Iterator[tuple[Tokens, dict[str, Any]]]:
    """Tokens and options that make `model.generate` use exactly this mask.

    A TransformerBridge accepts the mask. A HookedTransformer infers it from leading padding ids, so
    masked positions get an id that no row begins with, as the padding id of a copied tokenizer.
    """
    if is_bridge(model):
        yield tokens, {"attention_mask": mask.long()}
        return
    own, tokenizer = model.tokenizer, cast(Any, tokenizer_of(model))
    first = set(tokens[torch.arange(len(tokens)), mask.long().argmax(dim=1)].tolist())
    pad = next(i for i in (padding_id(model), *range(model.cfg.d_vocab)) if i not in first)
    if pad != tokenizer.pad_token_id:
        model.tokenizer = copy.deepcopy(tokenizer)
        model.tokenizer.pad_token = tokenizer.convert_ids_to_tokens(pad)
    _GENERATING[model] = mask
    try:
        yield tokens.masked_fill(~mask, pad), {"padding_side": "left"}
    finally:
        model.tokenizer = own
        del _GENERATING[model]


@contextlib.contextmanager
def _seeded(seeds: Sequence[int], device: torch.device) -> Iterator[None]:
    """Seed torch inside the context and restore its random state after; no seed changes nothing."""
    if not seeds:
        yield
        return
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seeds[0])
        with _DrawsByPart(seeds, device) if len(seeds) > 1 else contextlib.nullcontext():
            yield


class _DrawsByPart(TorchFunctionMode):
    """Equal parts of the rows draw tokens from a generator each, as `model.generate` cannot."""

    def __init__(self, seeds: Sequence[int], device: torch.device) -> None:
        super().__init__()
        self.generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is not torch.multinomial:
            return func(*args, **(kwargs or {}))
        parts = zip(args[0].chunk(len(self.generators)), self.generators, strict=True)
        return torch.cat([func(rows, *args[1:], generator=own) for rows, own in parts])


def _pad_after_stop(
    new: Int[Tensor, "batch new_pos"], stops: list[int], pad: int
) -> Int[Tensor, "batch new_pos"]:
    """Replace everything after a row's first stop token with padding."""
    stopped = torch.isin(new, torch.tensor(stops, device=new.device)).long().cumsum(dim=1)
    after = torch.zeros_like(stopped)
    after[:, 1:] = stopped[:, :-1]
    return new.masked_fill(after > 0, pad)
