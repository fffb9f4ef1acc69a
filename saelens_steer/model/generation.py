"""Batched generation from left-padded prompts, through `model.generate` of either class."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Int
from torch import Tensor

from saelens_steer.errors import InputError
from saelens_steer.model.forward import check_length
from saelens_steer.model.model_class import Model, is_bridge, tokenizer_of
from saelens_steer.model.provenance import origin_of
from saelens_steer.model.tokenizer import stop_ids
from saelens_steer.tensors import Mask, Tokens

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
    seed: int | None = None,
) -> Int[Tensor, "batch new_pos"]:
    """The new tokens that continue left-padded prompts, padded after each row's stop token.

    Greedy at temperature 0. Stops early once every row has; a row without a stop token was cut off
    at max_new_tokens. Sampling with a seed leaves torch's global random state unchanged. Hooks on
    the model see the whole prompt first, then one position at a time (KV cache).
    """
    check_length(model, tokens.shape[1] + max_new_tokens)
    _check_left_padded(mask)
    stops, run = stop_token_ids(model), cast(Any, model).generate
    with _seeded(seed, tokens.device), _mask_kept(model, tokens, mask) as (prompt, options):
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
    return _pad_after_stop(out[:, tokens.shape[1] :], stops, _padding(model))


def _padding(model: Model) -> int:
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
    tokenizer: Any = tokenizer_of(model)
    first = set(tokens[torch.arange(len(tokens)), mask.long().argmax(dim=1)].tolist())
    pad = next(i for i in (_padding(model), *range(model.cfg.d_vocab)) if i not in first)
    if pad != tokenizer.pad_token_id:
        model.tokenizer = copy.deepcopy(tokenizer)
        model.tokenizer.pad_token = tokenizer.convert_ids_to_tokens(pad)
    _GENERATING[model] = mask
    try:
        yield tokens.masked_fill(~mask, pad), {"padding_side": "left"}
    finally:
        model.tokenizer = tokenizer
        del _GENERATING[model]


@contextlib.contextmanager
def _seeded(seed: int | None, device: torch.device) -> Iterator[None]:
    """Seed torch inside the context and restore its random state after; None changes nothing."""
    if seed is None:
        yield
        return
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def _pad_after_stop(
    new: Int[Tensor, "batch new_pos"], stops: list[int], pad: int
) -> Int[Tensor, "batch new_pos"]:
    """Replace everything after a row's first stop token with padding."""
    stopped = torch.isin(new, torch.tensor(stops, device=new.device)).long().cumsum(dim=1)
    after = torch.zeros_like(stopped)
    after[:, 1:] = stopped[:, :-1]
    return new.masked_fill(after > 0, pad)
