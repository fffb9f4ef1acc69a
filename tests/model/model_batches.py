"""Left-padded batches, and what Hugging Face computes on them."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

LENGTHS = (9, 4, 6, 1)


def hugging_face(folder: Path):
    """The checkpoint as a Hugging Face model in float32."""
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()


def rows(seed: int = 0) -> list[torch.Tensor]:
    """Random prompts of different lengths that hold no special token."""
    draw = torch.Generator().manual_seed(seed)
    return [torch.randint(3, 380, (1, n), generator=draw) for n in LENGTHS]


def left_padded(prompts: list[torch.Tensor], pad: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and mask of one batch; padding comes first."""
    width = max(p.shape[1] for p in prompts)
    pads = [torch.full((1, width - p.shape[1]), pad) for p in prompts]
    tokens = torch.cat([torch.cat([q, p], 1) for q, p in zip(pads, prompts, strict=True)])
    masks = [torch.arange(width) >= width - p.shape[1] for p in prompts]
    return tokens, torch.stack(masks)
