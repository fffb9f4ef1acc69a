"""A real model from a four-bit GGUF file: loaded, steered, and equal to transformers' reading."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hugging import last_logits, resid_pre_changed
from smollm2 import smollm2_gguf
from transformers import AutoModelForCausalLM

from saelens_steer.config import TemplateSpec
from saelens_steer.data import encode_prompts
from saelens_steer.model import load_model, stop_token_ids
from saelens_steer.steering import add, load_vectors, save_vectors, steered

pytestmark = pytest.mark.slow
HOOK = "blocks.15.hook_resid_pre"
QUESTION = "Write a Python function that adds two numbers."


@pytest.fixture(scope="module")
def model() -> Any:
    return load_model(smollm2_gguf())


@pytest.fixture(scope="module")
def hf() -> Any:
    """The file as transformers reads it by itself."""
    file = smollm2_gguf()
    return AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float32, attn_implementation="eager"
    ).eval()


def chat_ids(model: Any) -> list[int]:
    return list(encode_prompts(model.tokenizer, [QUESTION], TemplateSpec(chat=True))[0].ids)


def test_no_token_is_added_to_texts_or_chats(model: Any) -> None:
    bos = model.tokenizer.bos_token_id
    assert bos not in model.to_tokens("The capital of France is")[0].tolist()
    chat = [{"role": "user", "content": QUESTION}]
    text = model.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    ids = chat_ids(model)
    assert ids.count(bos) == text.count("<|im_start|>") == 3
    assert model.tokenizer.decode(ids) == text
    assert ids[:2] != [bos, bos]


def test_digits_are_tokens_of_their_own(model: Any) -> None:
    text = "f(x) = 12345,   678"
    assert model.tokenizer.convert_tokens_to_ids(["1", "2", "3"]) == [33, 34, 35]
    tokens = model.to_str_tokens(text)
    assert [token for token in tokens if token.isdigit()] == list("12345678")
    assert "   " in tokens


@torch.no_grad()
def test_greedy_text_and_logits_equal_those_of_transformers(model: Any, hf: Any) -> None:
    tokens = torch.tensor([chat_ids(model)])
    ours, theirs = model(tokens), hf(tokens).logits
    assert float((ours - theirs).norm() / theirs.norm()) < 1e-4
    options = {"max_new_tokens": 48, "do_sample": False}
    text = hf.generate(tokens, attention_mask=torch.ones_like(tokens), **options)
    own = model.generate(tokens, verbose=False, eos_token_id=stop_token_ids(model), **options)
    assert torch.equal(own, text[:, : own.shape[1]])
    assert "def" in model.tokenizer.decode(own[0])


@torch.no_grad()
def test_a_push_equals_a_plain_hook_and_survives_the_export(
    model: Any, hf: Any, tmp_path: Any
) -> None:
    tokens = torch.tensor([chat_ids(model)])
    direction = torch.randn(model.cfg.d_model, generator=torch.Generator().manual_seed(0))
    file = save_vectors(
        tmp_path / "push.gguf", {"push": direction}, HOOK, model=model.cfg.model_name
    )
    pushed = load_vectors(file).vectors["push"]
    with steered(model, add(pushed, 4.0), HOOK):
        ours = model(tokens)[:, -1]
    with resid_pre_changed(hf, 15, lambda x: x + 4.0 * direction):
        theirs = last_logits(hf, tokens, torch.ones_like(tokens))
    assert float((ours - theirs).norm() / theirs.norm()) < 1e-4
    assert float((ours - model(tokens)[:, -1]).norm() / theirs.norm()) > 1e-2
