"""A small SAE on the shipped model, its activations, and a study of a few prompts."""

import pytest
import torch
from sae_lens.saes.standard_sae import StandardSAE, StandardSAEConfig
from small_studies import HOOK, selecting, study_of


@pytest.fixture(scope="session")
def acts(tiny_model):
    """Activations of twelve prompts of each domain, answers too."""
    from saelens_steer.activations import cache_activations

    return cache_activations(tiny_model, selecting(12), hook_name=HOOK)


@pytest.fixture(scope="session")
def sae(acts):
    """64 random unit directions, of which each fires on half of the tokens."""
    d_model, draw = acts.d_model, torch.Generator().manual_seed(5)
    sae = StandardSAE(StandardSAEConfig(d_in=d_model, d_sae=64, apply_b_dec_to_input=False))
    rows = torch.nn.functional.normalize(torch.randn(64, d_model, generator=draw), dim=1)
    sae.W_dec.data = rows
    sae.W_enc.data = rows.T.contiguous()
    sae.b_enc.data = -(acts.vectors @ sae.W_enc.data).median(0).values
    sae.b_dec.data.zero_()
    sae.cfg.metadata.hook_name = HOOK
    return sae


@pytest.fixture(scope="session")
def scoring(tiny_model, sae):
    """What causal scores read: four prompts of each side."""
    from saelens_steer.directions import CausalScoring

    prompts = [p for p in selecting(4) if p.domain in ("code", "math")]
    return CausalScoring(study_of(tiny_model, prompts), sae, "code", "math")


@pytest.fixture(scope="session")
def find(acts, sae, scoring):
    """Code against maths, with a shortlist of eight."""
    from saelens_steer.config import SelectSpec
    from saelens_steer.directions import DirectionFinder

    return DirectionFinder(sae, acts, SelectSpec(k=3, shortlist=8), scoring)
