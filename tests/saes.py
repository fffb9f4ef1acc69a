"""Small hand-made SAEs for the random model."""

from __future__ import annotations

import torch
from sae_lens import SAE
from sae_lens.saes.standard_sae import StandardSAE, StandardSAEConfig


def random_sae(width: int, hook_name: str | None = "blocks.2.hook_resid_pre") -> SAE:
    """32 random features whose decoder rows have different norms."""
    sae = StandardSAE(StandardSAEConfig(d_in=width, d_sae=32))
    draw = torch.Generator().manual_seed(3)
    sae.W_dec.data = torch.randn(32, width, generator=draw)
    sae.W_enc.data = sae.W_dec.data.T.contiguous() / width
    sae.b_dec.data = torch.randn(width, generator=draw)
    if hook_name is not None:
        sae.cfg.metadata.hook_name = hook_name
    return sae
