"""Small caches and SAEs whose every activation is known."""

from __future__ import annotations

import pandas as pd
import torch
from sae_lens import SAE
from sae_lens.saes.standard_sae import StandardSAE, StandardSAEConfig

HOOK = "blocks.4.hook_resid_pre"


def sae_of(d_in: int, d_sae: int, seed: int = 0, decoder_only: bool = False) -> SAE:
    """A random SAE in which feature 3 never fires and features 5 and 6 share an encoder."""
    sae = StandardSAE(StandardSAEConfig(d_in=d_in, d_sae=d_sae, apply_b_dec_to_input=False))
    draw = torch.Generator().manual_seed(seed)
    sae.W_enc.data = torch.randn(d_in, d_sae, generator=draw) / d_in**0.5
    sae.W_enc.data[:, 6] = sae.W_enc.data[:, 5]
    sae.W_dec.data = torch.randn(d_sae, d_in, generator=draw)
    sae.b_enc.data = torch.full((d_sae,), -0.5)
    sae.b_enc.data[3] = -1e6
    sae.b_dec.data.zero_()
    sae.cfg.metadata.hook_name = HOOK
    sae.cfg.metadata.decoder_only = decoder_only
    return sae


def cache_of(lengths: dict[tuple[str, str], int], d: int, ids: list[int], seed: int = 1):
    """Random activations for (prompt, domain) → length, with tokens drawn from `ids`."""
    from saelens_steer.activations import Activations

    draw = torch.Generator().manual_seed(seed)
    rows = [
        {"prompt_id": p, "domain": domain, "position": i, "part": "prompt"}
        for (p, domain), n in lengths.items()
        for i in range(n)
    ]
    index = pd.DataFrame(rows)
    chosen = torch.randint(len(ids), (len(rows),), generator=draw)
    index["token"] = [ids[i] for i in chosen]
    index["text"] = ""
    # few distinct values, so that many activations are equal
    vectors = torch.randint(-2, 3, (len(rows), d), generator=draw).float()
    return Activations(vectors, index, HOOK)
