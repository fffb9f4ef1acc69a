"""Which tokens' activations are kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from saelens_steer.data import diagnostic_positions, special_ids
from saelens_steer.tensors import Mask, Tokens, Vectors

TokenChoice = Literal["all", "last", "diagnostic", "answer"]


def kept_tokens(
    tokens: Tokens, mask: Mask, answer_lengths: Sequence[int], choice: TokenChoice, tokenizer: Any
) -> Mask:
    """True at the tokens of a left-padded batch that are kept, sinks not yet left out."""
    starts = assistant_starts(tokens, answer_lengths)
    ordinary = mask & (keep_ordinary(tokens, tokenizer) | starts)
    return ordinary & _chosen(tokens, mask, starts, choice, tokenizer)


def assistant_starts(tokens: Tokens, answer_lengths: Sequence[int]) -> Mask:
    """True at the last prompt token of each row."""
    columns = torch.tensor([tokens.shape[1] - 1 - n for n in answer_lengths], device=tokens.device)
    return torch.arange(tokens.shape[1], device=tokens.device) == columns[:, None]


def _chosen(tokens: Tokens, mask: Mask, starts: Mask, choice: TokenChoice, tokenizer: Any) -> Mask:
    if choice == "all":
        return mask
    if choice == "answer":
        return mask & (starts.cumsum(dim=1) > 0) & ~starts
    return starts if choice == "last" else starts | diagnostic_positions(tokens, mask, tokenizer)


def keep_ordinary(tokens: Tokens, tokenizer: Any) -> Mask:
    """False on special tokens."""
    special = torch.tensor(sorted(special_ids(tokenizer)), dtype=torch.long, device=tokens.device)
    return ~torch.isin(tokens, special)


def without_sinks(vectors: Vectors, max_norm: float | None) -> Tensor:
    """False on attention sinks: norm over `max_norm` × the median norm of these vectors. [n]"""
    return within(vectors.float().norm(dim=-1), max_norm)


def within(norms: Float[Tensor, " n"], max_norm: float | None) -> Tensor:
    """False where a norm is over `max_norm` × their median; null keeps all. [n]"""
    if max_norm is None or len(norms) == 0:
        return torch.ones(len(norms), dtype=torch.bool, device=norms.device)
    return norms <= max_norm * norms.median()
