"""How often random directions earn a claim: `python -m benchmarks.null_claims`.

Twenty random directions are put in the features' place and held against 512 controls, 200 times,
on the tiny model with the demo's prompts and strengths. Each of the 200 draws takes its 532
directions from a pool of measured ones. A claim (q < 0.05) anywhere in a draw is false by
construction; false-discovery control promises at most 5 % of draws.
"""

from __future__ import annotations

import argparse
import json

import numpy as np
import pandas as pd
import torch

import saelens_steer as ss
from saelens_steer.config import PromptSpec, SweepSpec
from saelens_steer.evidence import claims
from saelens_steer.study import Study
from saelens_steer.sweeps import plain_directions

CANDIDATES, CONTROLS = 20, 512


def measured_pool(
    n: int, n_prompts: int = 24, alphas: tuple[float, ...] = (-4.0, -2.0, 2.0, 4.0)
) -> pd.DataFrame:
    """The margin under `n` random covariance directions, as rows of a sweep."""
    model = ss.load_model("tiny-qwen3")
    hook_name = ss.default_hook_name(model)
    acts = ss.cache_activations(model, ss.load_prompts("tiny-domains"), hook_name=hook_name)
    drawn = ss.draw_controls(
        "covariance", n, d_model=model.cfg.d_model, seed=1, vectors=acts.vectors
    )
    prompts = tuple(ss.load_prompts("tiny-code-math-mixed", n_prompts))
    metrics, spec = ss.RunSpec().metrics[:1], SweepSpec(alphas=alphas)
    study = Study(model, None, hook_name, prompts, spec, metrics, PromptSpec())
    return study.logit_rows(plain_directions(drawn))


def false_claims(pool: pd.DataFrame, draws: int) -> int:
    """In how many of the draws at least one of the twenty earned a claim."""
    names, rng, found = pool["direction"].unique(), np.random.default_rng(0), 0
    for _ in range(draws):
        chosen = rng.permutation(names)[: CANDIDATES + CONTROLS]
        families = dict.fromkeys(chosen, "covariance") | dict.fromkeys(
            chosen[:CANDIDATES], "candidate"
        )
        rows = pool.assign(family=pool["direction"].map(families)).dropna(subset="family")
        table = claims(rows, ["math_margin"], n_resamples=2)
        found += bool((table["q_value"] < 0.05).any())
    return found


def main() -> None:
    """Measure, and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pool", type=int, default=2000)
    parser.add_argument("--draws", type=int, default=200)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = false_claims(measured_pool(options.pool), options.draws)
    print(json.dumps({"draws": options.draws, "with_a_claim": found, "pool": options.pool}))


if __name__ == "__main__":
    main()
