"""Measures the shipped tiny model: `python -m benchmarks.tiny_model`.

Prints the figures of its model card, over held-out prompts of each family, and fails when one is
out of bounds.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from saelens_steer.metrics import code_validity, latex_validity
from saelens_steer.model.tiny.figures import figures
from saelens_steer.model.tiny.train import WEIGHTS

BOUNDS = {
    "code: valid": (0.95, 1.0),
    "math: valid": (0.95, 1.0),
    "mixed: LaTeX first": (0.30, 0.70),
    "mixed: std of the margin": (0.5, float("inf")),
}


def main() -> int:
    """Prints one line per figure; status 1 when a bound is missed."""
    parser = argparse.ArgumentParser(description="Measure the tiny model.")
    parser.add_argument("--model", type=Path, default=WEIGHTS)
    parser.add_argument("--prompts", type=int, default=200, help="of each family")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    found = figures(model, tokenizer, arguments.prompts, code_validity, latex_validity)
    missed = [name for name, (low, high) in BOUNDS.items() if not low <= found[name] <= high]
    for name, value in found.items():
        print(f"{name:32} {value:7.3f}{'   OUT OF BOUNDS' if name in missed else ''}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
