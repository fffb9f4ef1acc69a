"""A model of Qwen3-4B's shape on one GPU: `python -m benchmarks.gpu`.

Random weights in bfloat16, steered at blocks.18.hook_resid_pre. Prints one JSON line with medians:
 sweep     the logits of 112 prompts × 9 strengths × 17 directions, steered at all tokens and at the
           last, with our engine (f), our full forward passes (e) and common loops (a, b)
 generate  64 new tokens after each of these rows; also Hugging Face's `generate` with a hook
 cache     `cache_activations` of 3,000 texts
 train     steps of an SAE (BatchTopK, 4,096 features, k 32) in batches of 4,096 cached activations
Loops, full passes and `generate` are timed on some rows and scaled to all. `floors` in the JSON has
the bounds for the figures. Without a CUDA GPU the exit status is 2.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from typing import Any

NAMES = ("sweep", "generate", "cache", "train")
FLOORS = {
    "sweep": ("seconds for all rows, all positions", "at most", 8.0),
    "generate": ("seconds for all rows", "at most", 60.0),
    "cache": ("tokens per second, in memory", "at least", 110_000.0),
}
NO_GPU = (
    "benchmarks.gpu needs a CUDA GPU and torch sees none here; benchmarks.sweep measures on a CPU."
)


def main() -> None:
    """Measure, and print one JSON line."""
    options = _options()
    import torch  # what takes longer to import waits until there is a GPU

    if not torch.cuda.is_available():
        print(NO_GPU, file=sys.stderr)
        raise SystemExit(2)
    with contextlib.redirect_stdout(sys.stderr):  # the libraries print, too
        found = measured(options)
    print(json.dumps(found))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, help="these parts")
    parser.add_argument("--sample", type=int, default=112, help="rows on which loops are timed")
    return parser.parse_args()


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """Every part that was asked for; each is said as it ends, so a kill loses only the rest."""
    import torch

    from benchmarks.gpu_parts import PARTS
    from benchmarks.gpu_rows import attention_kernels
    from benchmarks.qwen3_shape import Amounts, RandomBench, Task
    from benchmarks.side_by_side import say, strengths

    bench = RandomBench(n_prompts=112, n_directions=17, alphas=strengths(9))
    task = Task(bench, Amounts(), options.repeats, options.sample)
    found: dict[str, Any] = {
        "benchmark": "gpu",
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "hook_name": bench.hook_name,
        **vars(bench.shape),
        **bench.sizes(),
        "models_gpu_gib": round(torch.cuda.memory_allocated() / 2**30, 2),
        "attention_kernels": attention_kernels(bench),
        "floors": FLOORS,
    }
    for name in options.only:
        found[name] = PARTS[name](task)
        if name in FLOORS:
            found[name]["floor_held"] = held(name, found[name])
        say(json.dumps({name: found[name]}))
    return found


def held(part: str, found: dict[str, Any]) -> bool:
    """Whether a part's figure is on the right side of its floor."""
    _, side, floor = FLOORS[part]
    if part == "sweep":
        value = found["all"]["seconds"]["f_ours"]
    elif part == "generate":
        value = found["seconds"]["ours"]
    else:
        value = found["tokens_per_second"]["in_memory"]
    return value <= floor if side == "at most" else value >= floor


if __name__ == "__main__":
    main()
