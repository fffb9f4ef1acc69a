"""Sweeps at all heads, and of transcoders, equal a loop of run_with_hooks."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from checkpoints import random_gemma3
from plain_edits import firing_sae
from sweeps.passes import based
from transcoders import random_transcoder

import saelens_steer as ss
from saelens_steer.errors import InputError
from saelens_steer.features import feature_activations
from saelens_steer.steering import plain_directions
from saelens_steer.sweeps import CompletionSweep, LogitSweep, UnsteeredPass, grid, run_completions
from saelens_steer.sweeps.logits import run_logits

LAYER, FEATURE, ALPHAS = 1, 5, (-2.0, 0.0, 2.0)
Z, OUT, READ = (f"blocks.{LAYER}.{name}" for name in ("attn.hook_z", "hook_mlp_out", "mlp.hook_in"))
PROMPTS = ["Write a Python function", "Let x be a real number", "answer"]
IDS = [[50, 60, 70, 80, 90], [50, 60, 70], [200, 210], [210, *range(40, 60)]]


@pytest.fixture(scope="module")
def gemma(tmp_path_factory):
    return ss.load_model(str(random_gemma3(tmp_path_factory.mktemp("gemma3"))))


@pytest.fixture(params=["qwen3", "gemma3", "bridge"])
def model(request, random_model, random_bridge, gemma):
    return {"qwen3": random_model, "gemma3": gemma, "bridge": random_bridge}[request.param]


@torch.no_grad()
def by_hand(model, hook_name: str, change, alphas) -> dict[tuple[str, float], float]:
    """KL to the unsteered model of every prompt × α, one row at a time."""
    found = {}
    for prompt in PROMPTS:
        text = model.tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
        )
        tokens = model.tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids

        def last(fwd_hooks, tokens=tokens) -> torch.Tensor:
            return model.run_with_hooks(tokens, fwd_hooks=fwd_hooks)[0, -1].log_softmax(-1)

        clean = last([])
        for alpha in alphas:
            steered = last([(hook_name, lambda x, hook, a=alpha: change(x, a))])
            found[prompt, alpha] = float((clean.exp() * (clean - steered)).sum())
    return found


def kl_of(result) -> dict[tuple[str, float], float]:
    rows = result.rows[result.rows["family"] == "candidate"]
    texts = {f"prompt_{i}": prompt for i, prompt in enumerate(PROMPTS)}
    keys = [texts.get(name, name) for name in rows["prompt_id"].astype(str)]
    return dict(zip(zip(keys, rows["alpha"], strict=True), rows["kl"], strict=True))


def assert_same(result, want) -> None:
    found = sorted(kl_of(result).items(), key=lambda item: item[0][1])
    values = torch.tensor([value for _, value in found])
    expected = torch.tensor([v for _, v in sorted(want.items(), key=lambda item: item[0][1])])
    torch.testing.assert_close(values.sort().values, expected.double().sort().values,
                               atol=1e-5, rtol=1e-3)
    assert values.max() > 1e-3


def heads(width: int, model) -> int:
    return model.cfg.n_heads * model.cfg.d_head
