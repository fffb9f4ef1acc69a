"""Each edit at each hook of each architecture and class equals a plain Hugging Face hook."""

from __future__ import annotations

import contextlib

import pytest
import torch
from checkpoints import random_gemma3, random_llama, random_qwen2, random_qwen3
from hugging import hugging_face, last_logits
from model.model_batches import left_padded, rows
from plain_edits import EDITS, firing_sae, our_edits, plain_edits

from saelens_steer.errors import InputError
from saelens_steer.model import last_token_logits, load_model
from saelens_steer.steering import steered

FAMILIES = {
    "qwen3": random_qwen3,
    "qwen2": random_qwen2,
    "llama": random_llama,
    "gemma3": random_gemma3,
}
CLASSES = ("HookedTransformer", "TransformerBridge")
LAYER = 2
HOOKS = ("hook_resid_pre", "hook_resid_mid", "hook_resid_post", "hook_mlp_out", "hook_attn_out")
NORMS_AFTER = {
    "mlp_out": "post_feedforward_layernorm",
    "attn_out": "post_attention_layernorm",
}
"""Gemma's: what leaves a block is what leaves these norms."""


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory):
    """A random checkpoint, Hugging Face's model of it, and ours in both classes."""
    folder = FAMILIES[request.param](tmp_path_factory.mktemp(request.param))
    ours = {kind: load_model(str(folder), model_class=kind) for kind in CLASSES}
    return request.param, hugging_face(folder), ours


@contextlib.contextmanager
def changed_at(model, hook: str, change):
    """Pass what stands at this hook of layer LAYER through `change`, in Hugging Face's model."""
    layer, handles, seen = model.model.layers[LAYER], [], {}

    def before(module, args, kwargs):
        if not args:
            return args, {**kwargs, "hidden_states": change(kwargs["hidden_states"])}
        return (change(args[0]), *args[1:]), kwargs

    def note(module, args, kwargs):
        seen["resid_pre"] = args[0] if args else kwargs["hidden_states"]

    def after(module, args, out):
        is_tuple = isinstance(out, tuple)
        new = through(out[0] if is_tuple else out)
        return (new, *out[1:]) if is_tuple else new

    def through(x):
        # resid_mid = resid_pre + attn_out: changed by way of the attention's output
        return (
            change(seen["resid_pre"] + x) - seen["resid_pre"] if "resid_pre" in seen else change(x)
        )

    if hook == "hook_resid_pre":
        handles.append(layer.register_forward_pre_hook(before, with_kwargs=True))
    elif hook == "hook_resid_post":
        handles.append(layer.register_forward_hook(after))
    else:
        if hook == "hook_resid_mid":
            handles.append(layer.register_forward_pre_hook(note, with_kwargs=True))
        gemma = hasattr(layer, "post_feedforward_layernorm")
        name = "mlp_out" if hook == "hook_mlp_out" else "attn_out"
        plain = {"mlp_out": "mlp", "attn_out": "self_attn"}[name]
        module = getattr(layer, NORMS_AFTER[name] if gemma else plain)
        handles.append(module.register_forward_hook(after))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("hook", HOOKS)
def test_every_edit_equals_a_plain_hook(family, kind, hook):
    _, reference, ours = family
    model, batch = ours[kind], left_padded(rows())
    width, name = model.cfg.d_model, f"blocks.{LAYER}.{hook}"
    push = torch.randn(width, generator=torch.Generator().manual_seed(1))
    if kind == "TransformerBridge" and hook == "hook_resid_mid":
        with (
            pytest.raises(InputError, match="do not take effect"),
            steered(model, our_edits(firing_sae(width), push)["add"], name),
        ):
            raise AssertionError("not reached")
        return
    scale = float(activation_size(reference, hook, batch))
    sae, push = firing_sae(width, scale), push * scale / push.norm()
    plain, edits = plain_edits(sae, push), our_edits(sae, push)
    unsteered = last_logits(reference, *batch)
    for edit in EDITS:
        with changed_at(reference, hook, plain[edit]):
            expected = last_logits(reference, *batch)
        with steered(model, edits[edit], name, max_norm=None):
            found = last_token_logits(model, *batch)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0, msg=lambda m, e=edit: e + m)
        assert (expected - unsteered).abs().max() > 1e-3, edit


def activation_size(reference, hook: str, batch) -> torch.Tensor:
    """Mean norm of what stands at the hook, so that pushes are neither lost nor overwhelming."""
    seen = []
    with changed_at(reference, hook, lambda x: seen.append(x) or x):
        last_logits(reference, *batch)
    return seen[0][batch[1]].norm(dim=-1).mean()
