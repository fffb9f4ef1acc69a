"""Copy a trained SAE of the study to where it is shipped, with its matrices in 16 bits:
`python -m scripts.smollm2.ship build/smollm2/seed-0/sae configs/smollm2/saes/seed-0`."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

WEIGHTS = "sae_weights.safetensors"


def main(trained: Path, shipped: Path) -> None:
    shipped.mkdir(parents=True, exist_ok=True)
    weights = load_file(trained / WEIGHTS)
    halved = {name: w.half() if w.ndim == 2 else w for name, w in weights.items()}
    for name, weight in halved.items():
        if not torch.isfinite(weight).all():
            raise SystemExit(f"{name} does not fit into 16 bits")
    save_file(halved, shipped / WEIGHTS)
    for name in ("cfg.json", "quality.json"):
        shutil.copyfile(trained / name, shipped / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
