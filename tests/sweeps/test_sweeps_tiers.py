"""Where plain layers cannot run a model, rows start at the hook in TransformerLens's own layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from sweeps.test_sweeps_families import LOCAL, MADE, ROTARY, made, sweep_of
from torch import Tensor

from saelens_steer.config import CompletionSpec
from saelens_steer.metrics import completion_of
from saelens_steer.model import engine, stop_token_ids
from saelens_steer.steering import plain_directions
from saelens_steer.sweeps import (
    CompletionSweep,
    LogitSweep,
    measured_batches,
    run_completions,
    unsteered_pass,
)
from saelens_steer.sweeps.logits import run_logits

GATED = {"normalization_type": "RMS", "act_fn": "silu", "gated_mlp": True, **ROTARY}
EXPERTS = {"num_experts": 4, "experts_per_token": 2, "norm_topk_prob": True}
BLOOM = {
    "normalization_type": "LN",
    "act_fn": "gelu_fast",
    "positional_embedding_type": "alibi",
    "post_embedding_ln": True,
}
OWN_LAYERS = {
    "bloom": BLOOM,
    "mixtral": {**GATED, **EXPERTS, "n_key_value_heads": 2},
    "sinks": {**GATED, **LOCAL, "use_attention_sinks": True, "n_key_value_heads": 2},
    "olmo2": {**GATED, "original_architecture": "Olmo2ForCausalLM"},
    "olmoe": {**GATED, **EXPERTS, "original_architecture": "OlmoeForCausalLM", "clip_qkv": 0.5},
    "solu": {"normalization_type": "LN", "act_fn": "solu_ln"},
}
"""Models that plain layers cannot run."""
PLAIN = ("gptj", "gpt-neo", "gemma2")
"""Models that they can, tested without them."""
HOOKS = {
    "blocks.0.hook_resid_pre": "all",
    "blocks.2.hook_resid_pre": "last",
    "blocks.1.hook_resid_post": "all",
    "blocks.3.hook_resid_post": "last",
    "blocks.2.hook_attn_out": "all",
    "blocks.2.hook_mlp_out": "last",
    "blocks.1.hook_resid_mid": "all",
}
N_NEW = 6


@pytest.fixture(params=[*OWN_LAYERS, *PLAIN])
def model(request, monkeypatch):
    if request.param in PLAIN:
        monkeypatch.setattr(unsteered_pass, "why_not", lambda model: "the test forbids it")
        return made(**MADE[request.param])
    return made(**OWN_LAYERS[request.param])


def sweep_at(model, hook_name: str, positions: str) -> LogitSweep:
    layer, hook = hook_name.removeprefix("blocks.").split(".", 1)
    return replace(sweep_of(model, int(layer), hook, positions), sae=None)


def alone(sweep: LogitSweep, prompt: Sequence[int], cell: int | None) -> Tensor:
    """The logits of one unpadded prompt in a full pass, with a hook that any user would write."""
    last_only = sweep.unsteered_pass.positions == "last"

    def push(x: Tensor, hook: object) -> Tensor:
        moved = x + sweep.pushes([cell])[0]
        return torch.cat([x[:, :-1], moved[:, -1:]], dim=1) if last_only else moved

    hooks = [] if cell is None else [(sweep.unsteered_pass.hook_name, push)]
    tokens = torch.tensor([prompt])
    return sweep.model.run_with_hooks(tokens, fwd_hooks=hooks)[0, -1]


@torch.no_grad()
def assert_rows_are_full_passes(sweep: LogitSweep) -> None:
    """Every row, and the unsteered pass, against `alone`."""
    for found in measured_batches(sweep):
        places = zip(found["cell"].tolist(), found["prompt"].tolist(), strict=True)
        want = torch.stack([alone(sweep, sweep.prompts[prompt], cell) for cell, prompt in places])
        assert (found["logits"] - want).norm() < 1e-5 * want.norm()
    unsteered = torch.stack([alone(sweep, prompt, None) for prompt in sweep.prompts])
    off = sweep.unsteered_pass.baseline - unsteered
    assert off.norm() < 1e-5 * unsteered.norm()
    assert (want - unsteered[-1]).norm() > 0.01 * want.norm()


@pytest.mark.slow
def test_rows_from_the_hook_on_are_full_passes_of_each_prompt_alone(model):
    for hook_name, positions in HOOKS.items():
        if hook_name not in model.hook_dict:  # a parallel layer has no hook_resid_mid
            assert model.cfg.parallel_attn_mlp
            continue
        sweep = sweep_at(model, hook_name, positions)
        assert sweep.full_pass_reason is None
        assert sweep.padded
        assert_rows_are_full_passes(sweep)


@pytest.mark.parametrize("name", ["bloom", "mixtral", "sinks"])
@torch.no_grad()
def test_texts_are_greedy_full_passes_of_each_prompt_alone(name):
    plain = sweep_of(made(**OWN_LAYERS[name]), 2, "hook_resid_pre", "all", new_tokens=N_NEW)
    sweep = CompletionSweep(
        unsteered_pass=plain.unsteered_pass,
        directions=plain.directions,
        cells=[(0, 0.0), (1, 2.0)],
        metrics=[],
        spec=CompletionSpec(max_new_tokens=N_NEW),
    )
    assert sweep.full_pass_reason is not None
    stops, texts = stop_token_ids(sweep.model), set()
    for row in run_completions(sweep).itertuples():
        ids = list(sweep.prompts[row.prompt])
        while len(ids) < len(sweep.prompts[row.prompt]) + N_NEW and ids[-1] not in stops:
            ids.append(int(alone(replace(plain, cells=sweep.cells), ids, row.cell).argmax()))
        new = ids[len(sweep.prompts[row.prompt]) :]
        want = completion_of(sweep.model.tokenizer, new, stops)
        assert (row.completion, row.n_tokens) == (want["completion"], want["n_tokens"])
        texts.add(row.completion)
    assert len(texts) > 3


@pytest.mark.parametrize("hook", ["mlp.hook_post", "mlp.hook_pre"])
def test_a_hook_inside_the_mlp_leaves_the_plain_layers_aside(hook, capsys):
    model = made(**MADE["gpt2"])
    directions = plain_directions(torch.randn(2, model.cfg.d_mlp))
    sweep = replace(sweep_of(model, 2, hook, "all"), directions=directions)
    assert_rows_are_full_passes(sweep)
    assert sweep.padded
    assert capsys.readouterr().err.count(f"blocks.2.{hook} lies inside attention or the MLP") == 1


def test_the_reason_is_said_once(capsys):
    sweep = sweep_of(made(**BLOOM), 2, "hook_resid_pre", "all")
    run_logits(sweep)
    run_logits(sweep)
    said = capsys.readouterr().err
    assert said.count("the model's positional embedding is alibi") == 1
    assert "full forward pass" not in said


@pytest.mark.parametrize("settings", [MADE["gpt2"], BLOOM], ids=["plain", "own"])
@pytest.mark.parametrize("hook_name", ["blocks.3.attn.hook_pattern", "blocks.2.hook_resid_pre"])
def test_hooks_on_the_model_force_full_passes(settings, hook_name, capsys):
    model = made(**settings)
    model.add_hook(hook_name, lambda x, hook: 0.5 * x)
    sweep = sweep_of(model, 2, "hook_resid_pre", "all")
    assert f"hooks attached, at {hook_name}" in (sweep.full_pass_reason or "")
    assert_rows_are_full_passes(sweep)
    assert capsys.readouterr().err.count("hooks attached") == 1


def test_a_hook_of_torch_on_a_module_forces_full_passes_too():
    model = made(**MADE["gpt2"])
    handle = model.blocks[3].mlp.register_forward_hook(lambda m, args, out: 2 * out)
    sweep = sweep_of(model, 2, "hook_resid_pre", "all")
    assert "blocks.3.mlp" in (sweep.full_pass_reason or "")
    handle.remove()
    assert sweep_of(model, 2, "hook_resid_pre", "all").full_pass_reason is None


def test_hooks_below_the_rows_are_part_of_the_unsteered_pass():
    model = made(**MADE["gpt2"])
    model.add_hook("blocks.0.hook_resid_pre", lambda x, hook: 0.5 * x)
    sweep = sweep_of(model, 2, "hook_resid_pre", "all")
    assert sweep.full_pass_reason is None
    assert_rows_are_full_passes(sweep)


@pytest.mark.parametrize("hook_name", ["hook_embed", "ln_final.hook_normalized"])
def test_a_hook_anywhere_lets_the_model_itself_generate(hook_name):
    model = made(**MADE["gpt2"])
    where = sweep_of(model, 2, "hook_resid_pre", "all", new_tokens=4).unsteered_pass
    assert where.full_pass_reason_texts is None
    model.add_hook(hook_name, lambda x, hook: 0.5 * x)
    where = replace(where)
    assert f"hooks attached, at {hook_name}" in (where.full_pass_reason_texts or "")


def test_plain_layers_that_differ_from_the_models_are_not_used(monkeypatch):
    right = engine.plain_layers._norm

    def other(module, cfg):
        norm = right(module, cfg)
        return lambda x: 1.01 * norm(x)

    monkeypatch.setattr(engine.plain_layers, "_norm", other)
    sweep = sweep_of(made(**MADE["gpt2"]), 2, "hook_resid_pre", "all")
    assert "differ from plain ones" in (sweep.unsteered_pass.padded_reason or "")
    assert sweep.full_pass_reason is None
    assert_rows_are_full_passes(sweep)


def test_a_model_that_cannot_start_at_a_layer_runs_full_passes():
    """Shortformer's layers read the positions again, which a residual stream does not hold."""
    model = made(positional_embedding_type="shortformer", act_fn="gelu", normalization_type="LN")
    sweep = sweep_of(model, 2, "hook_resid_pre", "all")
    assert "starting at the hook differs from a full pass" in (sweep.full_pass_reason or "")
    assert_rows_are_full_passes(sweep)
