"""The logit sweep on other models' shapes: `python -m benchmarks.shapes`.

Random weights, distinct prompts of 100 random tokens, a push at the middle layer, beside a loop of
`run_with_hooks`, row by row. Prints one JSON line: how many times as many rows the sweep computes
in a second of CPU time (the median of alternating runs; the unsteered pass, the check of the engine
and α = 0 are included), the bound of shared work, and how far the logits are apart.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from dataclasses import dataclass
from functools import cache, cached_property, partial
from typing import Any

import torch
from transformer_lens import HookedTransformer, HookedTransformerConfig

from benchmarks.loops import hooked_transformer
from benchmarks.qwen3_shape import NAMED, tokenizer
from benchmarks.side_by_side import Bench, interleaved, strengths
from benchmarks.sweep import compared, our_logits, ours, run_loop, sample
from saelens_steer.sweeps import grid
from saelens_steer.sweeps.logits import run_logits

N_TOKENS = 100
SMALL_GPT = {
    "n_layers": 12,
    "d_model": 768,
    "n_heads": 12,
    "d_head": 64,
    "d_mlp": 3072,
    "d_vocab": 50_257,
    "normalization_type": "LN",
}
SHAPES: dict[str, dict[str, Any]] = {
    "gpt2": {**SMALL_GPT, "act_fn": "gelu_new"},
    "gemma-2-2b, 8 layers": {
        "n_layers": 8,
        "d_model": 2304,
        "n_heads": 8,
        "n_key_value_heads": 4,
        "d_head": 256,
        "d_mlp": 9216,
        "d_vocab": 32_000,
        "act_fn": "gelu_pytorch_tanh",
        "gated_mlp": True,
        "normalization_type": "RMS",
        "use_normalization_before_and_after": True,
        "positional_embedding_type": "rotary",
        "attn_scale": 16.0,
        "attn_scores_soft_cap": 50.0,
        "output_logits_soft_cap": 30.0,
        "use_local_attn": True,
        "window_size": 4096,
        "attn_types": ["local", "global"] * 4,
    },
    "bloom, gpt2's sizes": {
        **SMALL_GPT,
        "act_fn": "gelu_fast",
        "positional_embedding_type": "alibi",
        "post_embedding_ln": True,
    },
}
"""Name → settings of the config. The last one's rows run through TransformerLens's own layers."""


@dataclass(frozen=True)
class ShapeBench(Bench):
    """Random weights of a shape, distinct prompts of random tokens, random directions."""

    source: str = "gpt2"
    """A key of `SHAPES`."""

    @property
    def model(self) -> HookedTransformer:
        return random_model(self.source)

    @cached_property
    def prompts(self) -> list[list[int]]:
        draw, shape = torch.Generator().manual_seed(1), (self.n_prompts, N_TOKENS)
        return torch.randint(len(NAMED), self.model.cfg.d_vocab, shape, generator=draw).tolist()


@cache
def random_model(shape: str) -> HookedTransformer:
    """TransformerLens's own random weights; random norms, since ones would hide a missing one."""
    cfg = HookedTransformerConfig(**SHAPES[shape], n_ctx=2 * N_TOKENS, seed=0)
    words = copy.deepcopy(tokenizer(cfg.d_vocab))  # the model changes its tokenizer
    model = HookedTransformer(cfg, tokenizer=words)
    for name, weight in model.named_parameters():
        if name.endswith(".w"):
            weight.data.uniform_(0.5, 1.5)
    return model


def bound(cfg: HookedTransformerConfig, padded: bool) -> float:
    """Multiplications by weights in a full pass, over those that only this row needs, at all
    positions: the layers from the middle on, without the last layer's parts that only its last
    token needs (unless rows are `padded`), and one token's unembedding."""
    n_kv = cfg.n_key_value_heads or cfg.n_heads
    attention = cfg.d_model * cfg.d_head * (2 * cfg.n_heads + 2 * n_kv)
    layer = attention + (3 if cfg.gated_mlp else 2) * cfg.d_model * (cfg.d_mlp or 0)
    keys, unembedding = 2 * cfg.d_model * cfg.d_head * n_kv, cfg.d_model * cfg.d_vocab
    last = layer if padded else keys + (layer - keys) / N_TOKENS
    above = cfg.n_layers - cfg.n_layers // 2 - 1
    own = above * layer + last + unembedding / N_TOKENS
    return (cfg.n_layers * layer + unembedding) / own


def measured(bench: ShapeBench, positions: str, n_rows: int, repeats: int) -> dict[str, Any]:
    """The sweep's rows against some rows of the loop: speed, and agreement."""
    rows, sweep = sample(bench, n_rows), ours(bench, positions)
    loop = partial(run_loop, bench, hooked_transformer(bench), rows, positions == "last")
    agreement = compared(our_logits(sweep, rows), loop())
    paths = {"loop": loop, "sweep": lambda: run_logits(ours(bench, positions))}
    seconds = interleaved(paths, repeats, time.process_time)
    computed = bench.n_prompts * (1 + len(grid(bench.n_directions, bench.alphas)))
    pairs = zip(seconds["loop"], seconds["sweep"], strict=True)
    faster = [(loop / len(rows)) / (ours / computed) for loop, ours in pairs]
    found = {"times_faster": round(statistics.median(faster), 2), "rows_computed": computed}
    if positions == "all":
        found["bound_of_shared_work"] = round(bound(bench.model.cfg, sweep.padded), 2)
    return found | {"own_layers_of_transformerlens": sweep.padded, "agreement": agreement}


def main() -> None:
    """Measure, and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--directions", type=int, default=6)
    parser.add_argument("--loop-rows", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    found: dict[str, Any] = {}
    for shape in options.shapes:
        bench = ShapeBench(options.prompts, options.directions, strengths(4), shape)
        found[shape] = {
            positions: measured(bench, positions, options.loop_rows, options.repeats)
            for positions in ("all", "last")
        }
        random_model.cache_clear()
    print(json.dumps({"benchmark": "shapes", "threads": 1, "shapes": found}))


if __name__ == "__main__":
    main()
