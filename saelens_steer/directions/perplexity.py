"""How likely the unsteered model finds what a steered one wrote."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from saelens_steer.data import pad_left
from saelens_steer.model import run_to_hook, unembed

BATCH = 32
"""Texts in one pass."""
AT_ONCE = 1024
"""Positions unembedded at once."""


@torch.no_grad()
def text_losses(
    model: Any, prompts: Sequence[Sequence[int]], texts: Sequence[Sequence[int]]
) -> list[float]:
    """Mean −log p of each text's tokens after its prompt, in nats (its perplexity is exp of that).

    Prompts and texts are token ids. NaN for a text without tokens.
    """
    losses: list[float] = []
    for start in range(0, len(texts), BATCH):
        some = slice(start, start + BATCH)
        losses += _batch(model, prompts[some], texts[some])
    return losses


def _batch(
    model: Any, prompts: Sequence[Sequence[int]], texts: Sequence[Sequence[int]]
) -> list[float]:
    rows = [[*prompt, *text] for prompt, text in zip(prompts, texts, strict=True)]
    tokens, mask = pad_left(rows, model.tokenizer, device=model.cfg.device)
    final = run_to_hook(model, tokens, mask, f"blocks.{model.cfg.n_layers - 1}.hook_resid_post")
    found = []
    for row, text in enumerate(texts):
        n = len(text)
        if n == 0:
            found.append(float("nan"))
            continue
        before, after = final[row, -n - 1 : -1].split(AT_ONCE), tokens[row, -n:].split(AT_ONCE)
        pieces = zip(before, after, strict=True)
        parts = [cross_entropy(unembed(model, x), y, reduction="sum") for x, y in pieces]
        found.append(float(torch.stack(parts).sum()) / n)
    return found
