"""Checkpoints in other libraries' formats, and a reference implementation of what they compute."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from sae_lens import SAE
from safetensors.torch import save_file

from saelens_steer.sae import load_sae

D_IN, D_SAE = 6, 15


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


W_ENC, W_DEC = draw(D_IN, D_SAE, seed=1), draw(D_SAE, D_IN, seed=2)
"""SAELens's names and orientation."""
B_ENC, B_DEC, MEAN = draw(D_SAE, seed=3), draw(D_IN, seed=4), 3 * draw(D_IN, seed=5)
X = MEAN + 4 * draw(32, D_IN, seed=6)

LINEAR = {
    "encoder.weight": W_ENC.T,
    "encoder.bias": B_ENC,
    "decoder.weight": W_DEC.T,
    "decoder.bias": B_DEC,
}
OWN = {"W_enc": W_ENC, "b_enc": B_ENC, "W_dec": W_DEC, "b_dec": B_DEC}


RELU = {"architecture": "standard", "apply_b_dec_to_input": True}
ADDED = {"apply_b_dec_to_input": False}
SUBTRACTED = {"apply_b_dec_to_input": True}
"""What a bare state dict leaves open."""


def saved(path: Path, content: Any) -> Path:
    """Save as .safetensors or as a pickle, depending on the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        save_file({k: v.contiguous() for k, v in content.items()}, path)
    else:
        torch.save(content, path)
    return path


def load(
    folder: Path, content: Any, name: str = "sae.pt", *, said: dict | None = None, **given: Any
) -> SAE:
    """Save a checkpoint, with a config.json of what is said about it, and load it."""
    file = saved(folder / name, content)
    beside(file, said or {})
    return load_sae(file, **given)


def beside(file: Path, said: dict) -> Path:
    """Write a config.json beside a file."""
    file.with_name("config.json").write_text(json.dumps(said))
    return file


def without(content: dict, *names: str) -> dict:
    return {name: value for name, value in content.items() if name not in names}


class Trap:
    """An object that creates a file when it is unpickled."""

    def __init__(self, made: Path) -> None:
        self.made = made

    def __reduce__(self) -> tuple:
        return Path.touch, (self.made,)


def relu(hidden: torch.Tensor) -> torch.Tensor:
    return hidden.clamp_min(0)


def reference(x, *, subtract=True, act=relu, mean=0.0, scale=1.0) -> tuple[Any, Any]:
    """z and the reconstruction of the original, computed step by step in float64."""
    W_enc, W_dec, b_enc, b_dec = (w.double() for w in (W_ENC, W_DEC, B_ENC, B_DEC))
    inner = (x.double() - mean) / scale
    z = act((inner - b_dec * subtract) @ W_enc + b_enc)
    return z, (z @ W_dec + b_dec) * scale + mean


def top(k: int):
    def act(hidden: torch.Tensor) -> torch.Tensor:
        least = hidden.topk(k, dim=-1).values[..., -1:]
        return hidden.clamp_min(0) * (hidden >= least)

    return act


def jump(threshold):
    return lambda hidden: hidden * (hidden > threshold)
