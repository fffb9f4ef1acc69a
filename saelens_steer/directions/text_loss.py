"""The unsteered model's loss on generated texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from saelens_steer.data import pad_left
from saelens_steer.model import run_to_hook, unembed
from saelens_steer.model.model_class import tokenizer_of

BATCH = 32
"""Texts per pass."""
UNEMBED_BATCH = 1024
"""Positions unembedded together."""


@torch.no_grad()
def text_losses(
    model: Any, prompts: Sequence[Sequence[int]], texts: Sequence[Sequence[int]]
) -> list[float]:
    """Mean −log p of each text's tokens after its prompt, in nats; its exp is the perplexity.

    Prompts and texts are token ids. NaN for an empty text.
    """
    starts = range(0, len(texts), BATCH)
    batches = (_batch_losses(model, prompts[s : s + BATCH], texts[s : s + BATCH]) for s in starts)
    return [loss for batch in batches for loss in batch]


def _batch_losses(
    model: Any, prompts: Sequence[Sequence[int]], texts: Sequence[Sequence[int]]
) -> Iterator[float]:
    rows = [[*prompt, *text] for prompt, text in zip(prompts, texts, strict=True)]
    tokens, mask = pad_left(rows, tokenizer_of(model), model.cfg.device, model.cfg.d_vocab)
    final = run_to_hook(model, tokens, mask, f"blocks.{model.cfg.n_layers - 1}.hook_resid_post")
    for row, n in enumerate(map(len, texts)):
        if n == 0:
            yield float("nan")
            continue
        before, after = final[row, -n - 1 : -1], tokens[row, -n:]
        pieces = zip(before.split(UNEMBED_BATCH), after.split(UNEMBED_BATCH), strict=True)
        parts = [cross_entropy(unembed(model, x), y, reduction="sum") for x, y in pieces]
        yield float(torch.stack(parts).sum()) / n
