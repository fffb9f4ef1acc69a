"""A loaded model has its checkpoint's own tokenizer, and padding that no text begins with."""

from __future__ import annotations

import pytest
import torch
from checkpoints import small_tokenizer
from checkpoints_any import random_checkpoint
from model_batches import left_padded, rows
from tokenizers import normalizers, processors
from transformers import AutoModelForCausalLM, AutoTokenizer

import saelens_steer as ss
from saelens_steer.errors import InputError
from saelens_steer.model import (
    generate,
    last_token_logits,
    load_model,
    model_fingerprint,
    stop_token_ids,
)
from saelens_steer.model.tokenizer import PADDING, tokenizer_digest

CLASSES = ["HookedTransformer", "TransformerBridge"]
TEXTS = ["the sum of two numbers", " def add(a, b):", "$x$<|im_start|>user", "ÿ"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("tokenizers")
    return {name: random_checkpoint(name, root / name) for name in ("gpt2", "opt", "llama3")}


def _with_tokenizer(folder, target, change):
    """The checkpoint with a changed tokenizer."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), small_tokenizer()
    change(tokenizer)
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    return target


def _knows_bos(tokenizer):
    """As SmolLM2's: a BOS token that it does not write."""
    tokenizer.bos_token = "<|im_start|>"


def _gpt2s(tokenizer):
    """BOS and EOS are one token, and there is no padding."""
    tokenizer.pad_token, tokenizer.bos_token = None, "<|im_end|>"


def _nothing(tokenizer):
    """No BOS, EOS, padding or chat template."""
    tokenizer.pad_token = tokenizer.eos_token = tokenizer.chat_template = None


def _padding_outside(tokenizer):
    tokenizer.add_tokens([f"<extra{i}>" for i in range(8)])
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})


def _full_of_words(tokenizer):
    """GPT-2's: as many rows as tokens, too."""
    _gpt2s(tokenizer)
    tokenizer.add_tokens([f"<extra{i}>" for i in range(8)])


CHANGES = [_knows_bos, _gpt2s, _nothing, _padding_outside, _full_of_words]


@pytest.mark.parametrize("model_class", CLASSES)
@pytest.mark.parametrize("kind", ["gpt2", "opt", "llama3"])
def test_to_tokens_gives_the_ids_of_the_checkpoints_own_tokenizer(folders, kind, model_class):
    own = AutoTokenizer.from_pretrained(folders[kind])
    model = load_model(folders[kind], model_class=model_class)
    for text in TEXTS:
        assert model.to_tokens(text)[0].tolist() == own(text)["input_ids"]
    begins = kind != "gpt2"
    assert model.cfg.default_prepend_bos is model.cfg.tokenizer_prepends_bos is begins
    without = model.to_tokens(TEXTS[0], prepend_bos=False)[0].tolist()
    assert without == own(TEXTS[0], add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("change", [_knows_bos, _gpt2s, None])
def test_generate_on_a_templated_text_writes_what_compare_edits_writes(folders, tmp_path, change):
    """A BOS that the tokenizer knows but does not add is read once: the template writes it."""
    folder = _with_tokenizer(folders["gpt2"], tmp_path / "m", change) if change else folders["gpt2"]
    model, hook_name = load_model(folder), "blocks.1.hook_resid_pre"
    messages = [{"role": "user", "content": "the sum of two numbers"}]
    asked = model.tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True
    )
    right = model.tokenizer(asked, add_special_tokens=False)["input_ids"]
    assert model.to_tokens(asked)[0].tolist() == right
    nothing, n = ss.add(torch.zeros(model.cfg.d_model), 1.0), 8
    with ss.steered(model, nothing, hook_name):
        tokens = model.generate(
            asked, max_new_tokens=n, do_sample=False, verbose=False, return_type="tokens"
        )
    readme = model.tokenizer.decode(tokens[0, len(right) :], skip_special_tokens=True)
    for prompt in (messages, asked, right):
        (ours, _) = ss.compare_edits(
            model, {"nothing": nothing}, [prompt], hook_name, max_new_tokens=n
        )["completion"]
        assert ours and readme.startswith(ours)


@pytest.mark.parametrize("model_class", CLASSES)
@pytest.mark.parametrize("change", CHANGES)
def test_whatever_a_tokenizer_lacks_texts_are_encoded_padded_and_continued(
    folders, tmp_path, change, model_class
):
    folder = _with_tokenizer(folders["gpt2"], tmp_path / "m", change)
    own = AutoTokenizer.from_pretrained(folder)
    model = load_model(folder, model_class=model_class)
    for text in TEXTS:
        assert model.to_tokens(text)[0].tolist() == own(text)["input_ids"]
    pad = model.tokenizer.pad_token_id
    assert 0 <= pad < model.cfg.d_vocab
    assert pad != own.bos_token_id
    assert model.tokenizer.padding_side == "left"
    padded = model.to_tokens([TEXTS[0], TEXTS[0] * 2])
    assert padded[0, 0] == pad
    alone = generate(model, model.to_tokens(TEXTS[0]), model.to_tokens(TEXTS[0]) >= 0, 4)
    assert torch.equal(generate(model, padded, padded != pad, 4)[:1], alone)


@torch.no_grad()
@pytest.mark.parametrize("change", [_gpt2s, _full_of_words])
def test_a_leading_bos_is_read_and_not_taken_for_padding(folders, tmp_path, change):
    folder = _with_tokenizer(folders["gpt2"], tmp_path / "m", change)
    hf = AutoModelForCausalLM.from_pretrained(folder).eval()
    model = load_model(folder)
    tokens = model.to_tokens(TEXTS[0], prepend_bos=True)
    assert tokens[0, 0] == model.tokenizer.bos_token_id
    assert (model(tokens) - hf(tokens).logits).abs().max() <= 1e-4


def test_a_padding_token_that_was_added_is_in_a_free_row(folders, tmp_path):
    model = load_model(_with_tokenizer(folders["gpt2"], tmp_path / "m", _gpt2s))
    assert model.tokenizer.pad_token == PADDING
    assert model.tokenizer.pad_token_id == len(small_tokenizer())


@pytest.mark.parametrize("model_class", CLASSES)
def test_without_stop_tokens_completions_end_at_their_limit(folders, tmp_path, model_class):
    folder = _with_tokenizer(folders["gpt2"], tmp_path / "m", _nothing)
    (folder / "generation_config.json").unlink()
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace('"eos_token_id": 2', '"eos_token_id": null'))
    model = load_model(folder, model_class=model_class)
    assert stop_token_ids(model) == []
    assert generate(model, *left_padded(rows()), 5).shape == (4, 5)


@torch.no_grad()
def test_masked_padding_of_any_id_changes_nothing(folders):
    model = load_model(folders["llama3"])
    tokens, mask = left_padded(rows())
    other, _ = left_padded(rows(), pad=9)
    ours, theirs = (last_token_logits(model, t, mask) for t in (tokens, other))
    assert torch.equal(ours, theirs)


def _template(tokenizer):
    tokenizer.chat_template = "{{ messages[0]['content'] }}"


def _lower(tokenizer):
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()


def _begins(tokenizer):
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|im_end|> $A", special_tokens=[("<|im_end|>", 2)]
    )


@pytest.mark.parametrize("change", [_template, _lower, _begins, _knows_bos])
def test_another_tokenizer_is_another_fingerprint_of_whatever_it_is_put_on(folders, change):
    folder = folders["gpt2"]
    hf, plain, other = (
        AutoModelForCausalLM.from_pretrained(folder),
        small_tokenizer(),
        small_tokenizer(),
    )
    change(other)
    for source in (folder, hf):
        found = [model_fingerprint(load_model(source, tokenizer=t)) for t in (plain, other, plain)]
        assert found[0] == found[2] != found[1]
    assert tokenizer_digest(plain) != tokenizer_digest(other)


def test_what_a_call_leaves_behind_in_a_tokenizer_is_no_part_of_its_digest():
    tokenizer = small_tokenizer()
    before = tokenizer_digest(tokenizer)
    tokenizer(TEXTS, padding="max_length", truncation=True, max_length=5)
    assert tokenizer_digest(tokenizer) == before


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": "1.0"}'])
def test_a_broken_tokenizer_is_named(folders, tmp_path, text):
    folder = _with_tokenizer(folders["gpt2"], tmp_path / "m", _nothing)
    (folder / "tokenizer.json").write_text(text)
    with pytest.raises(InputError, match=r"tokenizer in .* cannot be read"):
        load_model(folder)
