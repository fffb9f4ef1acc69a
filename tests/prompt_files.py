"""Small files of prompts, and the config of a run on a random model that reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from saes import random_sae


def prompt_file(path: Path, stem: str, domains: list[str]) -> str:
    """A conversation of each of these domains; the path as a config names it."""
    rows = []
    for i, domain in enumerate(domains):
        messages = [{"role": "user", "content": f"{stem} of {i} {domain} numbers"}]
        rows.append({"id": f"{stem}{i}", "messages": messages, "domain": domain})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def small_run(home: Path, model: Path, hook_name: str, n_steered: int) -> dict[str, Any]:
    """A config without sweep and labels: an SAE of 32 features, and prompts of two kinds.

    `home` has the SAE in `sae`, and its decoder alone in `decoder`.
    """
    sae = random_sae(32, hook_name)
    sae.save_model(str(home / "sae"))
    sae.cfg.metadata.decoder_only = True
    sae.W_enc.data.fill_(torch.nan)
    sae.save_model(str(home / "decoder"))
    chosen = prompt_file(home / "chosen.jsonl", "list", ["code", "math"] * 4)
    steered = prompt_file(home / "steered.jsonl", "sum", ["mixed"] * n_steered)
    return {
        "model": {"name": str(model)},
        "hook_name": hook_name,
        "prompts": {"source": steered},
        "sae": {"load": {"source": str(home / "sae")}},
        "label": None,
        "select": {"prompts": chosen, "positive": "code", "negative": "math", "k": 2},
        "metrics": [
            {"margin": {"name": "math_margin", "target": "latex_delimiters"}},
            *("kl", "code_validity", "latex_validity", "latex_first"),
        ],
    }
