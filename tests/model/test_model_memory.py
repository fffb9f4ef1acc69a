"""Transformers models in memory, with their tokenizers, load as they are now."""

from __future__ import annotations

import copy

import pytest
import torch
from checkpoints_any import random_checkpoint
from model_batches import left_padded, rows
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForMultimodalLM, AutoTokenizer

from saelens_steer.errors import InputError
from saelens_steer.model import (
    generate,
    last_token_logits,
    load,
    load_model,
    model_fingerprint,
    model_provenance,
    stop_token_ids,
)

CLASSES = ["HookedTransformer", "TransformerBridge"]
KINDS = ["gpt2", "llama3", "gemma2", "gemma3-multimodal", "qwen3.5"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("memory")
    return {name: random_checkpoint(name, root / name) for name in KINDS}


def _read(folder):
    kind = AutoModelForMultimodalLM if "multimodal" in folder.name else AutoModelForCausalLM
    return kind.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_a_model_in_memory_is_computed_and_left_as_it_was(folders, kind):
    hf, tokenizer = _read(folders[kind])
    before = copy.deepcopy(hf)
    model = load_model(hf, tokenizer=tokenizer)
    tokens = torch.tensor([[7, 8, 9, 10, 11]])
    theirs = hf(tokens).logits[:, -1]
    assert (last_token_logits(model, tokens, tokens > 0) - theirs).abs().max() <= 1e-4
    assert torch.equal(before(tokens).logits, hf(tokens).logits)
    assert type(hf.config) is type(before.config)
    assert not any("original_component" in name for name, _ in hf.named_modules())


@torch.no_grad()
@pytest.mark.parametrize("model_class", CLASSES)
def test_added_tokens_and_several_stop_tokens_are_kept(folders, model_class):
    hf, tokenizer = _read(folders["llama3"])
    tokenizer.add_tokens(["<|tool|>", "<|done|>"], special_tokens=True)
    hf.resize_token_embeddings(len(tokenizer))
    done = tokenizer.convert_tokens_to_ids("<|done|>")
    hf.generation_config.eos_token_id = [tokenizer.eos_token_id, done]
    model = load_model(hf, tokenizer=tokenizer, model_class=model_class)
    text = "the sum<|tool|> of two<|done|>"
    assert model.to_tokens(text)[0].tolist() == tokenizer(text)["input_ids"]
    assert model.cfg.d_vocab == len(tokenizer)
    assert stop_token_ids(model) == [tokenizer.eos_token_id, done]
    ids = model.to_tokens(text)
    theirs = hf(ids).logits[:, -1]
    assert (last_token_logits(model, ids, ids >= 0) - theirs).abs().max() <= 1e-4


@torch.no_grad()
def test_a_completion_ends_at_any_of_the_stop_tokens(folders):
    hf, tokenizer = _read(folders["gpt2"])
    prompt = torch.tensor([[7, 8, 9]])
    first = int(hf(prompt).logits[0, -1].argmax())
    hf.generation_config.eos_token_id = [tokenizer.eos_token_id, first]
    model = load_model(hf, tokenizer=tokenizer)
    assert generate(model, prompt, prompt > 0, 6).tolist() == [[first]]


@torch.no_grad()
def test_changed_weights_are_those_of_the_model_and_have_another_fingerprint(folders):
    hf, tokenizer = _read(folders["gpt2"])
    plain = load_model(hf, tokenizer=tokenizer)
    hf.transformer.h[1].mlp.c_proj.weight.mul_(2.0)
    model = load_model(hf, tokenizer=tokenizer)
    tokens, mask = left_padded(rows())
    positions = (mask.long().cumsum(1) - 1).clamp(min=0)
    theirs = hf(tokens, attention_mask=mask.long(), position_ids=positions).logits[:, -1]
    assert (last_token_logits(model, tokens, mask) - theirs).abs().max() <= 1e-4
    assert model_fingerprint(model) != model_fingerprint(plain)
    assert model_provenance(model)["folder"] == "memory"


def test_a_model_in_memory_needs_its_tokenizer(folders):
    hf, _ = _read(folders["gpt2"])
    with pytest.raises(InputError, match="tokenizer=") as error:
        load_model(hf)
    assert "\n" not in str(error.value)


def test_a_model_that_was_changed_beyond_its_config_is_refused(folders):
    hf, tokenizer = _read(folders["llama3"])
    hf.model.layers[0].mlp.add_module("adapter", nn.Linear(4, 4))
    with pytest.raises(InputError, match="adapter") as error:
        load_model(hf, tokenizer=tokenizer)
    assert "\n" not in str(error.value)


def test_weights_untied_by_hand_are_refused(folders):
    hf, tokenizer = _read(folders["gpt2"])
    hf.lm_head.weight = nn.Parameter(hf.lm_head.weight.detach() * 2)
    with pytest.raises(InputError, match="tie_word_embeddings"):
        load_model(hf, tokenizer=tokenizer)


@pytest.mark.usefixtures("unchecked")
def test_what_is_no_transformers_model_is_refused(random_model):
    with pytest.raises(InputError, match="needs no loading"):
        load_model(random_model)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="not int"):
        load_model(3)  # pyright: ignore[reportArgumentType]


def test_the_checkpoint_of_a_model_in_memory_is_a_copy_while_it_lives(folders):
    hf, tokenizer = _read(folders["gpt2"])
    model = load_model(hf, tokenizer=tokenizer)
    again = load.checkpoint_of(model)
    assert again is not hf
    assert torch.equal(again.lm_head.weight, hf.lm_head.weight)
    del hf, again
    with pytest.raises(InputError, match="no longer exists"):
        load.checkpoint_of(model)


def _other_activation(hf):
    hf.model.layers[1].mlp.act_fn = nn.GELU()


def _hooked(hf):
    hf.model.layers[2].register_forward_hook(lambda module, args, out: out + 1.0)


def _hooked_before(hf):
    hf.model.layers[0].mlp.register_forward_pre_hook(lambda module, args: (args[0] * 1.1,))


def _another_base(hf):
    hf.config.rope_parameters["rope_theta"] = 100.0


def _another_eps(hf):
    hf.config.rms_norm_eps = 0.01


def _wrapped(hf):
    forward = hf.lm_head.forward
    hf.lm_head.forward = lambda x: forward(x).tanh()


@pytest.mark.parametrize(
    "change",
    [_other_activation, _hooked, _hooked_before, _another_base, _another_eps, _wrapped],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_that_computes_something_else_than_its_config_is_refused(folders, change, dtype):
    hf = AutoModelForCausalLM.from_pretrained(folders["llama3"], dtype=dtype)
    tokenizer = AutoTokenizer.from_pretrained(folders["llama3"])
    load_model(hf, tokenizer=tokenizer)
    change(hf)
    with pytest.raises(
        InputError, match="does not compute what its config and weights say"
    ) as error:
        load_model(hf, tokenizer=tokenizer)
    assert "\n" not in str(error.value)


def test_rotary_frequencies_that_a_cast_rounded_are_refused(folders):
    hf, tokenizer = _read(folders["llama3"])
    with pytest.raises(InputError, match="choose its dtype in from_pretrained"):
        load_model(hf.to(torch.bfloat16), tokenizer=tokenizer)  # pyright: ignore[reportArgumentType]


def test_a_model_in_training_is_read_without_dropout_and_stays_in_training(folders):
    hf, tokenizer = _read(folders["gpt2"])
    hf.train()
    hf.transformer.h[0].eval()
    load_model(hf, tokenizer=tokenizer)
    assert hf.training and not hf.transformer.h[0].attn.training
    assert hf.transformer.h[1].attn.training
