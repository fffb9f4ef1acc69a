"""Which tokens of a batch are padding, as far as its ids tell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from saelens_steer.errors import InputError
from saelens_steer.tensors import Mask

Ids = Int[Tensor, "batch pos"]


@dataclass(frozen=True)
class Padding:
    """The padding of a tokenizer."""

    pad: int | None
    ends_texts: bool = False
    """The padding token is EOS or BOS too, so that it may be part of a text."""
    on_the_right: bool = False

    @classmethod
    def of(cls, tokenizer: Any) -> Padding:
        """The padding of a tokenizer, which may be None."""
        pad = getattr(tokenizer, "pad_token_id", None)
        if pad is None:
            return cls(None)
        shared = pad in (tokenizer.eos_token_id, tokenizer.bos_token_id)
        return cls(pad, shared, tokenizer.padding_side == "right")


def leading_padding(tokens: Ids, pad_id: int | None) -> Mask:
    """False on leading padding, True from the first other token on."""
    if pad_id is None:
        return torch.ones_like(tokens, dtype=torch.bool)
    return (tokens != pad_id).long().cumsum(1) > 0


def real_tokens(tokens: Ids, padding: Padding, mask: Mask | None, ends_matter: bool) -> Mask:
    """False on padding, as far as the ids tell: padding tokens at either end of a row.

    `mask` is the attention mask that the model inferred from the ids, if it did. InputError if it
    matters where texts end (`ends_matter`) and the ids do not tell.
    """
    if mask is not None:
        real = mask
    elif padding.on_the_right and padding.ends_texts:  # the first token is BOS
        real = torch.ones_like(tokens, dtype=torch.bool)
    else:
        real = leading_padding(tokens, padding.pad)
    if padding.pad is None or not bool(real[:, -1].any()):
        return real
    text = leading_padding(tokens.flip(1), padding.pad).flip(1)
    trailing = (~text & real).sum(1)
    if not padding.ends_texts:
        return real & text
    said = not bool(real.all())  # by padding on the left
    if said or not bool(trailing.any()) or bool((trailing == 1).all()):
        return real
    if ends_matter and not (padding.on_the_right and bool((trailing == 0).any())):
        row = int(trailing.argmax())
        raise InputError(
            f"row {row} ends in {int(trailing[row])} tokens with id {padding.pad}, which serve "
            "both as padding and as end of text here, so where the text ends is ambiguous: pass an "
            "attention_mask with zeros at the padding, or pad on the left"
        )
    return real & text


def first_tokens(real: Mask, counts: Int[Tensor, " batch"]) -> Mask:
    """True on the first `counts` real tokens of each row."""
    return real & (real.long().cumsum(1) <= counts[:, None])


def last_tokens(real: Mask) -> Mask:
    """True on the last real token of each row."""
    return real & (real.long().flip(1).cumsum(1).flip(1) == 1)


def begins_with_two(tokens: Ids, real: Mask, bos: int) -> bool:
    """Whether a row begins with two BOS tokens."""
    first = first_tokens(real, torch.full((len(tokens),), 2))
    return bool(((tokens == bos) & first).sum(1).eq(2).any())
