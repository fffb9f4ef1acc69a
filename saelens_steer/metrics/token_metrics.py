"""Metrics of the next token's logits that compare sets of tokens: margins and log-probabilities."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from saelens_steer.config import LogProbSpec, MarginSpec
from saelens_steer.data import complement, describe, token_set
from saelens_steer.errors import InputError
from saelens_steer.metrics.metric import LogitMetric, logit_margin, target_log_prob
from saelens_steer.tensors import Logits, PerRow


def margin_metric(
    spec: MarginSpec, tokenizer: PreTrainedTokenizerBase, d_vocab: int
) -> LogitMetric:
    """A margin as a function; it reads only the tokens of its sets if both are given."""
    target, other = sets = margin_sets(spec, tokenizer, d_vocab)
    reads = None
    if spec.other is not None:
        reads = torch.cat(sets)
        target, other = torch.arange(len(reads)).split([len(target), len(other)])
    fn = partial(_margin, target=target, other=other)
    return LogitMetric(spec.name, fn, reads, sets)


def _margin(logits: Logits, *, baseline: Logits, target: Tensor, other: Tensor) -> PerRow:  # noqa: ARG001
    return logit_margin(logits, target, other)


def margin_sets(
    spec: MarginSpec, tokenizer: PreTrainedTokenizerBase, d_vocab: int
) -> tuple[Tensor, Tensor]:
    """Ids of the target and of the other tokens. Raises InputError if they share one."""
    target = token_set(spec.target, tokenizer, d_vocab)
    if spec.other is None:
        other = complement(target, tokenizer, d_vocab)
    else:
        other = token_set(spec.other, tokenizer, d_vocab)
    _check_apart(f"margin {spec.name!r}: target and other", target, other, tokenizer)
    if not other:
        raise InputError(f"margin {spec.name!r}: the target is the whole vocabulary; narrow it")
    return torch.tensor(target), torch.tensor(other)


def log_prob_metric(
    spec: LogProbSpec, tokenizer: PreTrainedTokenizerBase, d_vocab: int
) -> LogitMetric:
    """log p(target | not excluding) as a function of all logits."""
    target, excluded = log_prob_sets(spec, tokenizer, d_vocab)
    left = set(excluded.tolist())
    among = torch.tensor([i for i in range(d_vocab) if i not in left]) if left else None
    return LogitMetric(spec.name, partial(target_log_prob, target=target, among=among))


def log_prob_sets(
    spec: LogProbSpec, tokenizer: PreTrainedTokenizerBase, d_vocab: int
) -> tuple[Tensor, Tensor]:
    """Ids of the target and of the excluded tokens. Raises InputError if they share one."""
    target = token_set(spec.target, tokenizer, d_vocab)
    excluded = token_set(spec.excluding, tokenizer, d_vocab) if spec.excluding else []
    _check_apart(f"log_prob {spec.name!r}: target and excluding", target, excluded, tokenizer)
    return torch.tensor(target), torch.tensor(excluded, dtype=torch.long)


def _check_apart(
    both: str, one: list[int], other: list[int], tokenizer: PreTrainedTokenizerBase
) -> None:
    if shared := sorted(set(one) & set(other)):
        names = ", ".join(map(repr, describe(shared[:3], tokenizer)))
        them = "it" if len(shared) == 1 else "them"
        raise InputError(f"{both} share {names}: remove {them} from one of the two")
