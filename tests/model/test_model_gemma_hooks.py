"""What Gemma 3's hooks around its norms hold, and what edits there do."""

from __future__ import annotations

import pytest
import torch
from checkpoints import random_gemma3
from hugging import hugging_face, last_logits
from model_batches import left_padded, rows

from saelens_steer.errors import InputError
from saelens_steer.model import (
    check_hook_name,
    check_stream,
    last_token_logits,
    load_model,
    run_to_hook,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return random_gemma3(tmp_path_factory.mktemp("hooks") / "m")


@torch.no_grad()
@pytest.mark.parametrize(
    ("model_class", "hook", "module"),
    [
        ("HookedTransformer", "hook_mlp_out", "post_feedforward_layernorm"),
        ("TransformerBridge", "hook_mlp_out", "post_feedforward_layernorm"),
        ("TransformerBridge", "mlp.hook_out", "mlp"),
        ("HookedTransformer", "hook_attn_out", "post_attention_layernorm"),
        ("TransformerBridge", "hook_attn_out", "post_attention_layernorm"),
        ("TransformerBridge", "attn.hook_out", "self_attn.o_proj"),
    ],
)
def test_in_gemma_the_out_hooks_come_after_the_norm_and_a_bridge_has_others_before_it(
    folder, model_class, hook, module
):
    model = load_model(str(folder), model_class=model_class)
    hf = hugging_face(folder)
    name = check_stream(model, f"blocks.2.{hook}")
    tokens, mask = left_padded(rows())
    seen, v = [], torch.randn(32, generator=torch.Generator().manual_seed(1))

    def change(_module, _args, out):
        seen.append(out)
        return out + v

    handle = hf.model.layers[2].get_submodule(module).register_forward_hook(change)
    theirs = last_logits(hf, tokens, mask)
    handle.remove()
    assert (run_to_hook(model, tokens, mask, name) - seen[0])[mask].abs().max() <= 1e-4
    with model.hooks(fwd_hooks=[(name, lambda x, hook: x + v)]):
        assert (last_token_logits(model, tokens, mask) - theirs).abs().max() <= 1e-4
    assert (last_logits(hf, tokens, mask) - theirs).abs().max() > 0.1


def test_a_hook_before_the_norm_is_answered_with_what_would_be_right(random_model, random_bridge):
    for part in ("mlp", "attn"):
        name = f"blocks.2.{part}.hook_out"
        assert check_hook_name(random_bridge, name) == name
        with pytest.raises(InputError, match=f"use hook_{part}_out, or .* TransformerBridge"):
            check_stream(random_model, name)
    with pytest.raises(InputError, match=r"mlp\.hook_out"):
        check_stream(random_bridge, "blocks.2.mlp.hook_post")
