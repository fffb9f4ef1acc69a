"""A small hand-made SAE for the random model."""

import pytest
import torch
from sae_lens import SAE
from sae_lens.saes.standard_sae import StandardSAE, StandardSAEConfig


@pytest.fixture(scope="session")
def small_sae(random_model) -> SAE:
    """32 features with decoder rows of different norms at blocks.2.hook_resid_pre."""
    width = random_model.cfg.d_model
    sae = StandardSAE(StandardSAEConfig(d_in=width, d_sae=32))
    draw = torch.Generator().manual_seed(3)
    sae.W_dec.data = torch.randn(32, width, generator=draw)
    sae.W_enc.data = sae.W_dec.data.T.clone() / width
    sae.b_dec.data = torch.randn(width, generator=draw)
    sae.cfg.metadata.hook_name = "blocks.2.hook_resid_pre"
    return sae
