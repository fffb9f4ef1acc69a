"""In every family of models, rows from the hook on are rows of whole forward passes."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from checkpoints import random_gemma3, random_llama, random_qwen2, random_qwen3, small_tokenizer
from sweeps.passes import based
from transformer_lens import HookedTransformer, HookedTransformerConfig

import saelens_steer as ss
from saelens_steer.config import CompletionSpec
from saelens_steer.data import special_ids
from saelens_steer.metrics import LogitMetric
from saelens_steer.steering import plain_directions
from saelens_steer.sweeps import CompletionSweep, LogitSweep, UnsteeredPass, grid, run_completions
from saelens_steer.sweeps.logits import run_logits

PROMPTS = [
    [50, 60, 70, 80, 90],
    [50, 60, 70],
    [50, 60, 90, 100, 110, 120, 130, 140, 150, 160, 170],
    [200, 210],
    [50, 60, 70, 80, 90],
    [210, *range(40, 60)],
]
"""Some begin alike, two are equal, one is the beginning of another, and all lengths differ."""
WINDOW = {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 2}
FAMILIES = {
    "qwen3": random_qwen3,
    "qwen2": random_qwen2,
    "llama": random_llama,
    "gemma3": random_gemma3,
    "qwen3-window": partial(random_qwen3, **WINDOW),
}
LOCAL = {"use_local_attn": True, "window_size": 5, "attn_types": ["local", "global"] * 2}
ROTARY = {"positional_embedding_type": "rotary"}
PARALLEL = {"normalization_type": "LN", "parallel_attn_mlp": True, **ROTARY}
MADE = {
    "gpt2": {"normalization_type": "LN", "act_fn": "gelu_new"},
    "gpt2-folded": {"normalization_type": "LNPre", "act_fn": "relu"},
    "gemma2": {
        "normalization_type": "RMS",
        "use_normalization_before_and_after": True,
        "act_fn": "gelu_pytorch_tanh",
        "gated_mlp": True,
        "n_key_value_heads": 2,
        "attn_scale": 4.0,
        "attn_scores_soft_cap": 1.5,
        "output_logits_soft_cap": 3.0,
        **ROTARY,
        **LOCAL,
    },
    "neox": {**PARALLEL, "act_fn": "gelu", "d_head": 16, "rotary_dim": 4},
    "gptj": {**PARALLEL, "act_fn": "gelu_new", "rotary_dim": 6, "rotary_adjacent_pairs": True},
    "gpt-neo": {
        "normalization_type": "LN",
        "act_fn": "gelu_new",
        "use_attn_scale": False,
        **LOCAL,
    },
}
"""Models that come from elsewhere: learned positions, biases and no gate; soft caps that bite,
windows and norms on both sides; heads that are rotated in part, and parallel layers."""


@pytest.fixture(scope="module", params=[*FAMILIES, *MADE])
def model(request, tmp_path_factory):
    if request.param in MADE:
        return made(**MADE[request.param])
    folder = FAMILIES[request.param](tmp_path_factory.mktemp(request.param))
    return ss.load_model(str(folder))


def made(**settings) -> HookedTransformer:
    torch.manual_seed(3)
    sizes = {"n_layers": 4, "d_model": 32, "d_head": 8, "n_heads": 4, "d_mlp": 48, "n_ctx": 64}
    cfg = HookedTransformerConfig(**{**sizes, **settings}, d_vocab=512, seed=3)
    model = HookedTransformer(cfg, tokenizer=small_tokenizer())
    for name, weight in model.named_parameters():
        scale = 0.3 if "W_" in name else 0.1
        weight.data = weight.data.new_empty(weight.shape).normal_(0, scale) + name.endswith(".w")
    return model


def moved(logits: torch.Tensor, baseline: torch.Tensor) -> torch.Tensor:
    """One number that every logit is in."""
    weights = torch.linspace(0, 1, logits.shape[1])
    return ((logits - baseline) * weights).sum(-1)


def sweep_of(model, layer: int, hook: str, positions: str, **settings) -> LogitSweep:
    draw = torch.Generator().manual_seed(1)
    return LogitSweep(
        unsteered_pass=UnsteeredPass(
            model=model,
            hook_name=f"blocks.{layer}.{hook}",
            prompts=PROMPTS,
            positions=positions,
            **settings,
        ),
        directions=plain_directions(torch.randn(2, model.cfg.d_model, generator=draw)),
        cells=grid(2, (-2.0, 2.0)),
        metrics=[LogitMetric("moved", moved)],
    )


@pytest.mark.parametrize("positions", ["all", "last"])
@pytest.mark.parametrize(
    ("layer", "hook"),
    [(0, "hook_resid_pre"), (2, "hook_resid_pre"), (2, "hook_mlp_out"), (3, "hook_attn_out")],
)
def test_rows_from_the_hook_on_are_rows_of_whole_passes(model, layer, hook, positions):
    fast = sweep_of(model, layer, hook, positions)
    assert fast.full_pass_reason is None
    assert not fast.padded
    tables = [
        run_logits(s).sort_values(["cell", "prompt"])
        for s in (fast, based(fast, whole_passes=True))
    ]
    ours, theirs = (t.drop(columns="receipt_feature_act").to_numpy(float) for t in tables)
    scale = np.abs(tables[1]["moved"]).max()
    assert scale > 0.1
    np.testing.assert_allclose(ours, theirs, atol=1e-5 * max(scale, 1), rtol=1e-5)


def special(model) -> int:
    """A special token that is not one at which completions end, so that prompts may hold it."""
    return sorted(special_ids(model.tokenizer))[0]


def sinks_and_special_tokens_left(sweep) -> bool:
    """Whether special tokens are left alone, and something else is for its norm."""
    unsteered_pass = sweep.unsteered_pass
    tokens, real = unsteered_pass.padded
    ordinary = real & (tokens != special(sweep.model))
    alone = (unsteered_pass.chosen & ~ordinary).sum() == 0
    return bool(
        alone and (ordinary & ~unsteered_pass.chosen).any() and unsteered_pass.chosen.any(1).all()
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "where",
    [{}, {"positions": "last"}, {"exclude_special_tokens": True, "max_norm": 1.01}],
    ids=["all", "last", "left alone"],
)
def test_texts_are_those_that_the_model_writes_by_itself(model, where):
    """Rows of different lengths, some of which end early and leave the batch."""
    plain = sweep_of(model, 2, "hook_resid_pre", where.get("positions", "all"))
    if "max_norm" in where:
        where = where | {"prompts": [[*PROMPTS[0][:2], special(model), *p] for p in PROMPTS]}
    sweep = CompletionSweep(
        unsteered_pass=based(plain, new_tokens=20, **where).unsteered_pass,
        directions=plain.directions,
        cells=[(0, 0.0), (0, -2.0), (1, 2.0)],
        metrics=[],
        spec=CompletionSpec(max_new_tokens=20),
    )
    assert sweep.full_pass_reason is None
    if "max_norm" in where:
        assert sinks_and_special_tokens_left(sweep)
    ours, theirs = (
        run_completions(s).sort_values(["cell", "prompt"], ignore_index=True)
        for s in (sweep, based(sweep, whole_passes=True))
    )
    assert ours.equals(theirs)
    assert ours["n_tokens"].nunique() > 1 or len(ours["completion"].unique()) > 3
