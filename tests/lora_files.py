"""LoRA adapters of a random Qwen 3, in peft's format."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

with_peft = pytest.mark.skipif(
    importlib.util.find_spec("peft") is None, reason="needs the package peft"
)


def write_adapter(folder: Path, base: str, rank: int = 2, **changes: Any) -> Path:
    """A LoRA for the values of all layers of a random Qwen 3, in peft's format."""
    folder.mkdir()
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": base,
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": 8,
        "target_modules": ["v_proj"],
        **changes,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    generator = torch.Generator().manual_seed(0)
    place = "base_model.model.model.layers.{}.self_attn.v_proj.lora_{}.weight"
    shapes = {"A": (rank, 32), "B": (32, rank)}
    weights = {
        place.format(layer, part): torch.randn(shape, generator=generator) * 0.1
        for layer in range(4)
        for part, shape in shapes.items()
    }
    save_file(weights, folder / "adapter_model.safetensors")
    return folder
