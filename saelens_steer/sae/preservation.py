"""What is left of a model's predictions when an SAE's output, or nothing, replaces a residual."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from sae_lens import SAE
from torch import Tensor
from torch.nn.functional import cross_entropy

from saelens_steer.model import run_to_hook, unembed
from saelens_steer.sae.codec import through
from saelens_steer.tensors import Mask, Resid, Tokens

ROWS, LOGITS = 1024, 1 << 26
"""Positions unembedded at once, and logits of one pass (a quarter of a gigabyte)."""
PASSES = ("intact", "sae", "zero")
Replace = Callable[[Tensor], Tensor]


class Preservation:
    """Running sums of cross-entropy and KL, per token, of the three passes over batches of tokens.

    As SAELens's evals count them: cross-entropy at ordinary (not special) tokens that have a next
    one, KL from the untouched model's distribution at every ordinary token; zero ablation at every
    position, the SAE at the `kept` ones alone.
    """

    def __init__(self, model: Any, sae: SAE[Any], hook_name: str) -> None:
        self.model, self.sae, self.hook_name = model, sae, hook_name
        self.loss = torch.zeros(len(PASSES), dtype=torch.float64)
        self.kl = torch.zeros(len(PASSES), dtype=torch.float64)
        self.n_loss = self.n_kl = 0

    def add(self, tokens: Tokens, ordinary: Mask, kept: Mask) -> None:
        """Run one batch three times; ordinary, kept: [batch, pos]."""
        everywhere = torch.ones_like(kept)
        spliced = kept, partial(through, self.sae)
        hooks = [None, spliced, (everywhere, torch.zeros_like)]
        finals = torch.stack([self._final(tokens, hook) for hook in hooks])
        following = torch.nn.functional.pad(tokens[:, 1:], (0, 1), value=-1)
        where = ordinary.flatten()
        rows, nexts = finals.flatten(1, 2)[:, where], following.flatten()[where]
        at_once = max(1, min(ROWS, LOGITS // self.model.cfg.d_vocab))
        for part, after in zip(rows.split(at_once, dim=1), nexts.split(at_once), strict=True):
            self._count(part, after)

    def _count(self, rows: Float[Tensor, "pass row d_model"], nexts: Tensor) -> None:
        logits = [unembed(self.model, x) for x in rows]
        there = nexts >= 0
        intact = logits[0].log_softmax(-1)
        for i, own in enumerate(logits):
            if bool(there.any()):
                loss = cross_entropy(own[there], nexts[there], reduction="sum")
                self.loss[i] += float(loss.double())
            if i:
                kl = (intact.exp() * (intact - own.log_softmax(-1))).sum(-1)
                self.kl[i] += float(kl.double().sum())
        self.n_loss += int(there.sum())
        self.n_kl += len(nexts)

    def _final(self, tokens: Tokens, edit: tuple[Mask, Replace] | None) -> Resid:
        """The last residual, with the hook replaced where a mask says so."""

        def hook(resid: Resid, hook: Any) -> Resid:  # noqa: ARG001 (TransformerLens passes hook=)
            assert edit is not None
            return torch.where(edit[0][..., None], edit[1](resid), resid)

        last = f"blocks.{self.model.cfg.n_layers - 1}.hook_resid_post"
        with self.model.hooks(fwd_hooks=[] if edit is None else [(self.hook_name, hook)]):
            return run_to_hook(self.model, tokens, torch.ones_like(tokens, dtype=torch.bool), last)

    def figures(self) -> dict[str, float]:
        """Means per token, in nats, and what share of the damage of zeroing the SAE undoes."""
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
