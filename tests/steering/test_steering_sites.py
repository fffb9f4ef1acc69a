"""SAEs of all heads, and transcoders, against plain hooks on the Hugging Face model."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch
from checkpoints import random_gemma3, random_qwen3
from checkpoints_any import random_checkpoint
from hugging import hugging_face
from model.model_batches import left_padded, rows
from plain_edits import EDITS, firing_sae, our_edits, plain_edits
from transcoders import random_transcoder

import saelens_steer as ss
from saelens_steer.errors import InputError
from saelens_steer.model import last_token_logits, load_model, run_to_hook
from saelens_steer.steering import steered

FAMILIES = {
    "qwen3": random_qwen3,
    "gemma3": random_gemma3,
    "gpt2": lambda folder: random_checkpoint("gpt2", folder),
}
LAYER = 2
Z, OUT, READ = (f"blocks.{LAYER}.{name}" for name in ("attn.hook_z", "hook_mlp_out", "mlp.hook_in"))


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory):
    """Hugging Face's model of a random checkpoint, and ours in both classes."""
    folder = FAMILIES[request.param](tmp_path_factory.mktemp(request.param))
    kinds = ("HookedTransformer", "TransformerBridge")
    return hugging_face(folder), [load_model(str(folder), model_class=kind) for kind in kinds]


@torch.no_grad()
def last_logits(reference: Any, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Hugging Face's logits at the last position; GPT-2 is told where each row begins."""
    positions = (mask.long().cumsum(1) - 1).clamp_min(0)
    out = reference(input_ids=tokens, attention_mask=mask.long(), position_ids=positions)
    return out.logits[:, -1].float()


@torch.no_grad()
def sae_of_heads(z: torch.Tensor) -> Any:
    """An SAE of Z whose features fire on half of these vectors [n, width]."""
    sae = firing_sae(z.shape[-1], float(z.norm(dim=-1).mean()), Z)
    sae.b_enc[:63] = -((z - sae.b_dec) @ sae.W_enc).median(0).values[:63]
    return sae


def parts(reference: Any) -> tuple[Any, Any, Any]:
    """The projection of the heads, the MLP, and the module whose output joins the residual."""
    gpt2 = hasattr(reference, "transformer")
    layer = (reference.transformer.h if gpt2 else reference.model.layers)[LAYER]
    projection = layer.attn.c_proj if gpt2 else layer.self_attn.o_proj
    return projection, layer.mlp, getattr(layer, "post_feedforward_layernorm", layer.mlp)


@contextlib.contextmanager
def input_changed(module: Any, change: Any):
    handle = module.register_forward_pre_hook(lambda _, args: (change(args[0]), *args[1:]))
    try:
        yield
    finally:
        handle.remove()


@contextlib.contextmanager
def output_changed(module: Any, change: Any):
    handle = module.register_forward_hook(lambda _, __, out: change(out))
    try:
        yield
    finally:
        handle.remove()


def input_of(module: Any, reference: Any, batch: Any) -> torch.Tensor:
    seen: list[torch.Tensor] = []
    with input_changed(module, lambda x: seen.append(x) or x):
        last_logits(reference, *batch)
    return seen[0]


def test_reading_all_heads_gives_the_input_of_the_output_projection(family):
    reference, models = family
    tokens, mask = batch = left_padded(rows())
    want = input_of(parts(reference)[0], reference, batch)
    for model in models:
        found = run_to_hook(model, tokens, mask, Z)
        assert found.shape == (*tokens.shape, model.cfg.n_heads * model.cfg.d_head)
        torch.testing.assert_close(found[mask], want[mask], atol=1e-4, rtol=1e-4)


def test_reading_the_input_of_an_mlp_gives_what_comes_after_the_norms_weights(family):
    reference, models = family
    tokens, mask = batch = left_padded(rows())
    want = input_of(parts(reference)[1], reference, batch)
    for model in models:
        found = run_to_hook(model, tokens, mask, READ)
        torch.testing.assert_close(found[mask], want[mask], atol=1e-4, rtol=1e-4)
        before = run_to_hook(model, tokens, mask, f"blocks.{LAYER}.ln2.hook_normalized")
        assert (before[mask] - want[mask]).abs().max() > 0.1
        assert not model.blocks[LAYER].mlp._forward_pre_hooks


def test_every_edit_of_all_heads_is_a_plain_hook_on_the_output_projection(family):
    reference, models = family
    batch, width = left_padded(rows()), models[0].cfg.n_heads * models[0].cfg.d_head
    projection = parts(reference)[0]
    z = input_of(projection, reference, batch)[batch[1]]
    push = torch.randn(width, generator=torch.Generator().manual_seed(1))
    sae, push = sae_of_heads(z), push * z.norm(dim=-1).mean() / push.norm()
    plain, ours = plain_edits(sae, push), our_edits(sae, push)
    unsteered = last_logits(reference, *batch)
    for edit in EDITS:
        with input_changed(projection, plain[edit]):
            want = last_logits(reference, *batch)
        assert (want - unsteered).abs().max() > 1e-3, edit
        for model in models:
            with steered(model, ours[edit], Z, max_norm=None):
                found = last_token_logits(model, *batch)
            torch.testing.assert_close(found, want, atol=1e-4, rtol=1e-4)


def test_ablating_a_feature_of_the_heads_removes_exactly_its_share(family):
    model = family[1][0]
    tokens, mask = left_padded(rows())
    before = run_to_hook(model, tokens, mask, Z)
    sae = sae_of_heads(before[mask])
    with steered(model, ss.ablate(sae, 5), Z) as receipt:
        after = run_to_hook(model, tokens, mask, Z)
    share = sae.encode(before)[..., 5:6] * sae.W_dec[5]
    assert 0 < receipt.changed < receipt.positions
    torch.testing.assert_close((before - after)[mask], share[mask], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("where", [Z, OUT])
def test_padding_and_company_change_nothing(family, where):
    prompts = rows()
    for model in family[1]:
        width = run_to_hook(model, *left_padded(prompts[:1]), where).shape[-1]
        edit = ss.add(torch.linspace(-1, 1, width))
        with steered(model, edit, where):
            together = last_token_logits(model, *left_padded(prompts))
        for row, prompt in enumerate(prompts):
            with steered(model, edit, where):
                alone = last_token_logits(model, *left_padded([prompt]))
            torch.testing.assert_close(together[row : row + 1], alone, atol=1e-4, rtol=1e-4)


def test_hooks_at_the_heads_are_gone_after_an_error(family):
    batch = left_padded(rows())
    for model in family[1]:
        clean = last_token_logits(model, *batch)
        with pytest.raises(InputError, match="entries"), steered(model, ss.add(torch.ones(7)), Z):
            last_token_logits(model, *batch)
        with pytest.raises(ZeroDivisionError), steered(model, ss.add(torch.ones(1)), Z):
            raise ZeroDivisionError
        torch.testing.assert_close(last_token_logits(model, *batch), clean, atol=0, rtol=0)


def test_a_row_of_a_transcoder_is_pushed_where_it_writes(family):
    reference, models = family
    batch, transcoder = left_padded(rows()), random_transcoder(32, LAYER)
    push = 3.0 * transcoder.W_dec[4].detach()
    with output_changed(parts(reference)[2], lambda x: x + push):
        want = last_logits(reference, *batch)
    assert (want - last_logits(reference, *batch)).abs().max() > 1e-3
    for model in models:
        with steered(model, ss.add(transcoder.W_dec[4], 3.0), OUT):
            found = last_token_logits(model, *batch)
        torch.testing.assert_close(found, want, atol=1e-4, rtol=1e-4)


def test_an_sae_that_reshapes_heads_is_the_same_sae_and_keeps_its_way(family):
    model = family[1][0]
    tokens, mask = left_padded(rows())
    z = run_to_hook(model, tokens, mask, Z)
    sae = firing_sae(z.shape[-1], 1.0, Z)
    with steered(model, ss.reconstruct(sae), Z):
        want = last_token_logits(model, tokens, mask)
    sae.turn_on_forward_pass_hook_z_reshaping()
    heads = z.unflatten(-1, (model.cfg.n_heads, -1))
    own = sae(heads)
    with steered(model, ss.reconstruct(sae), Z):
        torch.testing.assert_close(last_token_logits(model, tokens, mask), want)
    assert own.shape == heads.shape
    torch.testing.assert_close(sae(heads), own)


@pytest.mark.parametrize(
    "hook", ["attn.hook_pattern", "attn.hook_q", "mlp.hook_post", "ln1.hook_normalized"]
)
def test_a_hook_without_one_vector_for_each_position_is_refused_before_any_pass(random_model, hook):
    name = f"blocks.{LAYER}.{hook}"
    passes = ss.steered(random_model, ss.add(torch.ones(9), 1.0), name, positions="prompt")
    with pytest.raises(InputError, match=f"'{name}' cannot be used.*hook_resid_pre"), passes:
        pytest.fail("the context was entered")
