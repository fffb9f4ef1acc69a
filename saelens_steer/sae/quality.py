"""Quality of an SAE: reconstruction, sparsity, and preservation of the model's predictions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float
from sae_lens import SAE
from sae_lens.pretokenize_runner import get_special_token_from_cfg
from sae_lens.tokenization_and_batching import concat_and_batch_sequences
from torch import Tensor
from torch.nn.functional import cross_entropy

from saelens_steer.activations import keep_ordinary, without_sinks
from saelens_steer.config import counted, plain
from saelens_steer.data import (
    SpecialTokens,
    begins_with_bos,
    bos_id,
    listed_texts,
    token_ids,
    trained_with_bos,
)
from saelens_steer.errors import InputError
from saelens_steer.model import flat, run_to_hook, unembed
from saelens_steer.model.model_class import Model, tokenizer_of
from saelens_steer.sae.codec import through
from saelens_steer.sae.fit import FitSums
from saelens_steer.sae.sites import check_sae, check_splice
from saelens_steer.tensors import Mask, Resid, Tokens

BATCH = 16
"""Contexts run at once."""
ROWS, LOGITS = 1024, 1 << 26
"""Maximum positions unembedded at once, and logits per pass (256 MiB)."""


@torch.no_grad()
def sae_quality(
    model: Model,
    sae: SAE[Any],
    hook_name: str,
    texts: Iterable[str],
    context_size: int = 128,
    max_norm: float | None = 10.0,
) -> dict[str, Any]:
    """Reconstruction, sparsity and prediction-preservation figures on packed contexts of `texts`.

    l0, l1, explained_variance, mse (per vector), cosine, l2_ratio (‖x̂‖ / ‖x‖), dead_share (features
    that never fire), dense_share (fire on over a tenth of the tokens), density (histogram of log10
    firing rates of live features); cross-entropy in nats per token with the activations intact
    (ce_loss), replaced by the SAE's output (ce_loss_sae) or by zeros (ce_loss_zero); loss_recovered
    = (ce_zero − ce_sae) / (ce_zero − ce_intact), and the same for KL from the intact model. With
    max_norm None they equal SAELens's evals. Special tokens and attention sinks (norm over
    `max_norm` × the median; sinks_dropped), on which SAEs are not trained, are left intact.
    Contexts begin as the SAE's training contexts did (see `packed_contexts`). Raises InputError if
    the texts fill no context.
    """
    context_size, max_norm = counted("context_size", context_size, 2), plain(max_norm)
    check_splice(sae)
    check_sae(sae, model, hook_name)
    sums = FitSums(sae)
    predictions = _PreservationSums(model, sae, hook_name)
    contexts = packed_contexts(model, texts, context_size, sae)
    for tokens in contexts.to(model.cfg.device).split(BATCH):
        resid = run_to_hook(model, tokens, torch.ones_like(tokens, dtype=torch.bool), hook_name)
        ordinary = keep_ordinary(tokens, model.tokenizer)
        kept = ordinary.clone()
        kept[ordinary] = without_sinks(resid[ordinary], max_norm)
        sums.add(resid[kept].float(), dropped=int((ordinary & ~kept).sum()))
        predictions.add(tokens, ordinary, kept)
    return sums.figures() | predictions.figures()


def packed_contexts(
    model: Model, texts: Iterable[str], context_size: int, special_tokens: SpecialTokens = None
) -> Tokens:
    """Concatenate the texts' tokens and cut them into full rows of context_size, as in training.

    `special_tokens`: whether rows, and texts within them, begin with BOS; None follows the
    checkpoint's tokenizer, an SAE its training contexts. Raises InputError if no row is filled.
    """
    tokenizer = tokenizer_of(model)
    bos = bos_id(tokenizer) if begins_with_bos(tokenizer, special_tokens) else None
    ids = [
        torch.tensor(token_ids(tokenizer, text), dtype=torch.long) for text in listed_texts(texts)
    ]
    rows = list(
        concat_and_batch_sequences(
            iter(ids),
            context_size,
            begin_batch_token_id=bos,
            sequence_separator_token_id=_separator(tokenizer, special_tokens, bos),
        )
    )
    if not rows:
        raise InputError(
            f"the texts have {sum(map(len, ids))} tokens, which do not fill a context of "
            f"{context_size}: use a larger corpus or a smaller context_size"
        )
    return torch.stack(rows)


def _separator(tokenizer: Any, special_tokens: SpecialTokens, bos: int | None) -> int | None:
    """The separator of texts: as the SAE states it, or else BOS if contexts begin with it."""
    if not isinstance(special_tokens, SAE) or trained_with_bos(special_tokens) is None:
        return bos
    about = special_tokens.cfg.metadata
    if "sequence_separator_token" not in about:
        return bos
    found = about["sequence_separator_token"]
    return found if found is None else get_special_token_from_cfg(found, tokenizer)


class _PreservationSums:
    """Running sums of cross-entropy and KL from the intact model, for intact, SAE and zero passes.

    As in SAELens's evals, cross-entropy covers ordinary (not special) tokens with a next token,
    KL all ordinary tokens. Zero ablation replaces every position, the SAE only the `kept` ones.
    """

    def __init__(self, model: Any, sae: SAE[Any], hook_name: str) -> None:
        self.model, self.sae, self.hook_name = model, sae, hook_name
        self.loss = torch.zeros(3, dtype=torch.float64)
        self.kl = torch.zeros(3, dtype=torch.float64)
        self.n_loss = self.n_kl = 0

    def add(self, tokens: Tokens, ordinary: Mask, kept: Mask) -> None:
        """Run the batch three times; ordinary, kept: [batch, pos]."""

        def spliced(resid: Resid) -> Resid:
            return torch.where(kept[..., None], through(self.sae, resid), resid)

        passes = (None, spliced, torch.zeros_like)
        finals = torch.stack([self._final(tokens, replace) for replace in passes])
        following = torch.nn.functional.pad(tokens[:, 1:], (0, 1), value=-1)
        rows, nexts = finals[:, ordinary], following[ordinary]
        at_once = max(1, min(ROWS, LOGITS // self.model.cfg.d_vocab))
        for part, after in zip(rows.split(at_once, dim=1), nexts.split(at_once), strict=True):
            self._count(part, after)

    def _count(self, rows: Float[Tensor, "pass row d_model"], nexts: Tensor) -> None:
        logits = [unembed(self.model, x) for x in rows]
        has_next = nexts >= 0
        intact = logits[0].log_softmax(-1)
        for i, own_logits in enumerate(logits):
            if bool(has_next.any()):
                loss = cross_entropy(own_logits[has_next], nexts[has_next], reduction="sum")
                self.loss[i] += float(loss.double())
            if i:
                kl = (intact.exp() * (intact - own_logits.log_softmax(-1))).sum(-1)
                self.kl[i] += float(kl.double().sum())
        self.n_loss += int(has_next.sum())
        self.n_kl += len(nexts)

    def _final(self, tokens: Tokens, replace: Callable[[Resid], Resid] | None) -> Resid:
        """The final residual, with the activations at the hook passed through `replace`."""

        def hook(x: Tensor, hook: Any) -> Tensor:  # noqa: ARG001 (TransformerLens passes hook=)
            assert replace is not None
            return replace(flat(self.hook_name, x)).reshape(x.shape)

        last = f"blocks.{self.model.cfg.n_layers - 1}.hook_resid_post"
        with self.model.hooks(fwd_hooks=[(self.hook_name, hook)] if replace else []):
            return run_to_hook(self.model, tokens, torch.ones_like(tokens, dtype=torch.bool), last)

    def figures(self) -> dict[str, float]:
        """Means per token in nats, and the shares of loss and KL recovered relative to zeroing."""
        intact, with_sae, zeroed = (self.loss / self.n_loss).tolist()
        _, kl_sae, kl_zero = (self.kl / self.n_kl).tolist()
        return {
            "ce_loss": intact,
            "ce_loss_sae": with_sae,
            "ce_loss_zero": zeroed,
            "loss_recovered": (zeroed - with_sae) / (zeroed - intact),
            "kl_sae": kl_sae,
            "kl_zero": kl_zero,
            "kl_recovered": 1 - kl_sae / kl_zero,
        }
