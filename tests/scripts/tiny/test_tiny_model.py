import json

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3ForCausalLM

from saelens_steer.data.sources import SHIPPED
from saelens_steer.model.snapshot import TINY_WEIGHTS
from scripts.tiny.data import write_prompts
from scripts.tiny.figures import complete, encode, figures, margins
from scripts.tiny.grammar import examples, split_of
from scripts.tiny.mixed import log_odds
from scripts.tiny.train import batch


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(TINY_WEIGHTS)


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(TINY_WEIGHTS, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def found(model, tokenizer):
    return figures(model, tokenizer, 40, max_new_tokens=64)


def test_the_weights_are_bfloat16_and_under_ten_megabytes():
    path = TINY_WEIGHTS / "model.safetensors"
    assert path.stat().st_size <= 10_000_000
    with safe_open(path, "pt") as tensors:
        assert {tensors.get_slice(name).get_dtype() for name in tensors.keys()} == {"BF16"}  # noqa: SIM118


def test_the_model_is_a_small_qwen3_whose_vocabulary_is_its_tokenizers(model, tokenizer):
    assert isinstance(model, Qwen3ForCausalLM)
    assert model.config.num_hidden_layers == 8
    assert model.config.hidden_size == 192
    assert model.config.vocab_size == len(tokenizer)
    assert model.config.eos_token_id == tokenizer.eos_token_id


@pytest.mark.slow
def test_code_and_math_answers_are_valid(found):
    assert found["code: valid"] >= 0.95
    assert found["math: valid"] >= 0.95


@pytest.mark.slow
def test_answers_come_to_their_end(found):
    assert min(value for name, value in found.items() if name.endswith("ended")) >= 0.95


@pytest.mark.slow
def test_the_first_token_of_mixed_answers_is_graded(found):
    assert 0.30 <= found["mixed: LaTeX first"] <= 0.70
    assert found["mixed: std of the margin"] >= 0.5


def test_the_margin_follows_the_odds_of_the_wording(model, tokenizer):
    held = examples("mixed", 100, 11, "heldout")
    odds = torch.tensor([log_odds(e.prompt) for e in held])
    pair = torch.stack([odds, margins(model, tokenizer, held)])
    assert torch.corrcoef(pair)[0, 1] > 0.9


def test_a_padded_prompt_has_the_margin_it_has_alone(model, tokenizer):
    held = examples("mixed", 6, 11, "heldout")
    alone = torch.cat([margins(model, tokenizer, [e]) for e in held])
    torch.testing.assert_close(margins(model, tokenizer, held), alone, atol=1e-4, rtol=0)


def test_a_story_is_about_the_kind_of_transport_that_was_asked_for(model, tokenizer):
    held = [e for e in examples("transport", 60, 11, "heldout") if "ferry" in e.prompt][:5]
    assert held
    assert all("ferry" in text for text, _ in complete(model, tokenizer, held, 48))


def test_prompts_of_the_chat_are_short(tokenizer):
    widths = [encode(tokenizer, [e])["input_ids"].shape[1] for e in examples("mixed", 200, 11)]
    assert sum(widths) / len(widths) <= 30


def test_the_shipped_prompt_sets_are_what_the_grammar_writes(tmp_path):
    for path in write_prompts(tmp_path):
        assert path.read_text() == (SHIPPED / path.name).read_text()


def test_selection_prompts_and_steered_prompts_come_from_different_splits():
    for name, split in [("domains", "select"), ("code-math-mixed", "heldout")]:
        lines = (SHIPPED / f"tiny-{name}.jsonl").read_text().splitlines()
        assert {split_of(json.loads(line)["messages"][0]["content"]) for line in lines} == {split}


@pytest.mark.slow
def test_a_training_batch_is_a_function_of_seed_and_step(tokenizer):
    assert torch.equal(batch(3, 0, tokenizer), batch(3, 0, tokenizer))
    assert not torch.equal(batch(3, 0, tokenizer), batch(4, 0, tokenizer))
