"""The smallest config that passes through every step of a run, and its runs in child processes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from checkpoints import random_qwen3
from prompt_files import prompt_file, small_run

HOOK = "blocks.2.hook_resid_pre"
TRAIN = {
    **{"d_sae": 32, "options": {"k": 4}, "training_tokens": 512, "batch_tokens": 128},
    **{"context_size": 32, "lr_warm_up_steps": 1, "lr_decay_steps": 1},
}


def every_step(home: Path) -> dict[str, Any]:
    """A config whose model, corpus and prompts are written to `home`."""
    model = random_qwen3(home / "model", num_hidden_layers=3)
    corpus = home / "corpus.jsonl"
    texts = [f"the sum of {i} and {i * i} numbers, as text of one line" for i in range(60)]
    corpus.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    domains = ["code", "math", "mixed"]
    return small_run(home, model, HOOK, 2) | {
        "sae": {
            "train": {**TRAIN, "corpus": str(corpus)},
            "grid": [{"architecture": "topk", "vary": {"k": [2, 4]}}],
            "frozen_decoder_baseline": True,
        },
        "select": small_run(home, model, HOOK, 2)["select"] | {"k": 1},
        "metrics": [{"margin": {"target": "latex_delimiters"}}, "kl", "distinct_words"],
        "features": {"topic": None},
        "sweep": {
            **{"alphas": [-2, 2], "n_controls": 2, "cache_logits": True},
            "completions": {"max_new_tokens": 2, "files": True},
        },
        "label": {"max_new_tokens": 2, "n_prompts": 2},
        "compare_edits": {"max_new_tokens": 2, "variants": {"b": ["reconstruct"]}},
        "compare_directions": {
            **{"methods": ["mean_difference", "direct_logit"], "baseline": "mean_difference"},
            **{"k": 1},
        },
        "tradeoffs": {
            "prompts": prompt_file(home / "domains.jsonl", "product", domains),
            **{"directions": ["mean_difference"], "top": 1, "edits": ["add"], "alphas": [0.5]},
        },
    }


def loaded(home: Path, config: dict[str, Any]) -> dict[str, Any]:
    """The same with an SAE from a file, whose quality is measured."""
    return config | {"sae": {"load": {"source": str(home / "sae")}}}
