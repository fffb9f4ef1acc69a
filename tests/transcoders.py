"""Random transcoders of every kind, made with SAELens's own classes."""

from __future__ import annotations

from typing import Any

import torch
from sae_lens import SAE
from sae_lens.registry import SAE_CLASS_REGISTRY
from sae_lens.saes.sae import SAEMetadata

KINDS = ("transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder")


def random_transcoder(
    width: int, layer: int, kind: str = "jumprelu_transcoder", **metadata: Any
) -> SAE:
    """64 features; its metadata are those of Gemma Scope 2, unless others are given."""
    own = {
        "hook_name": f"blocks.{layer}.hook_mlp_in",
        "hf_hook_name": f"model.layers.{layer}.pre_feedforward_layernorm.output",
        "hook_name_out": f"blocks.{layer}.hook_mlp_out",
    }
    made, config = SAE_CLASS_REGISTRY[kind]
    sizes = {"d_in": width, "d_out": width, "d_sae": 64, "apply_b_dec_to_input": False}
    sae = made(config(**sizes, metadata=SAEMetadata(**(metadata or own))))
    draw = torch.Generator().manual_seed(5)
    for name, weight in sae.named_parameters():
        drawn = torch.randn(weight.shape, generator=draw) / width**0.5
        weight.data = drawn.abs() if name == "threshold" else drawn
    return sae
