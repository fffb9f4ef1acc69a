import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from saelens_steer.model.snapshot import TINY_WEIGHTS
from scripts.tiny.figures import latex_delimiters
from scripts.tiny.grammar import FAMILIES, examples
from scripts.tiny.texts import corpus_texts, python_source
from scripts.tiny.tokenizer import save_tokenizer, train_tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(TINY_WEIGHTS)


def pieces(tokenizer, text: str) -> list[str]:
    return [tokenizer.decode([i]) for i in tokenizer(text)["input_ids"]]


def templated(tokenizer, messages: list[dict[str, str]]) -> str:
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


def test_both_delimiters_are_single_tokens_wherever_they_stand(tokenizer):
    assert pieces(tokenizer, "$$")[0] == "$$"
    assert pieces(tokenizer, "x$$y") == ["x", "$$", "y"]
    assert pieces(tokenizer, "```python\n")[0] == "```"
    assert pieces(tokenizer, "a $$b$$")[-1] == "$$"


def test_a_mixed_answer_begins_with_exactly_a_delimiter_or_a_fence(tokenizer):
    first = {pieces(tokenizer, e.answer)[0] for e in examples("mixed", 100, seed=5)}
    assert first == {"$$", "```"}


@pytest.mark.parametrize("text", ["été ∑ 漢字", "a\n\n\t b  ", "$$$ ``` $$$$", "  x_y = 'z'\r\n"])
def test_any_text_survives_the_round_trip(tokenizer, text: str):
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_chats_and_source_survive_the_round_trip(tokenizer):
    for text in [*corpus_texts(200, 5, tokenizer), *python_source(5, pieces=20)]:
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_digits_are_split_singly(tokenizer):
    assert [p.strip() for p in pieces(tokenizer, "1234 56")] == ["1", "2", "3", "4", "5", "6"]


def test_the_chat_template_has_the_shape_of_qwen(tokenizer):
    user = {"role": "user", "content": "Hello"}
    system = {"role": "system", "content": "Be kind."}
    turn = "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    assert templated(tokenizer, [user]) == turn
    opened = "<|im_start|>system\nBe kind.<|im_end|>\n"
    assert templated(tokenizer, [system, user]) == opened + turn


def test_special_tokens_are_those_of_qwen_and_there_is_no_bos(tokenizer):
    assert tokenizer.pad_token == "<|endoftext|>"
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.bos_token is None
    assert tokenizer("Hello")["input_ids"] == tokenizer.encode("Hello", add_special_tokens=False)
    assert pieces(tokenizer, "<|im_start|>user") == ["<|im_start|>", "user"]


def test_the_double_dollar_is_a_latex_delimiter_and_the_fence_is_not(tokenizer):
    found = [tokenizer.decode([i]) for i in latex_delimiters(tokenizer)]
    assert "$$" in found
    assert "```" not in found


def test_chats_are_short_enough_to_generate_within_sixty_four_tokens(tokenizer):
    for family in FAMILIES:
        lengths = [len(tokenizer(e.answer)["input_ids"]) for e in examples(family, 300, seed=5)]
        assert max(lengths) < 64


@pytest.mark.slow
def test_a_newly_trained_tokenizer_has_the_shape_of_the_shipped_one(tokenizer, tmp_path):
    save_tokenizer(train_tokenizer(seed=0), tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert len(again) == len(tokenizer)
    assert templated(again, [{"role": "user", "content": "a"}])


def test_the_corpus_is_seeded_and_keeps_to_the_training_split(tokenizer):
    texts = list(corpus_texts(100, 5, tokenizer))
    assert texts == list(corpus_texts(100, 5, tokenizer))
    assert all(text.endswith("<|im_end|>\n") for text in texts)
    held = {e.prompt for f in FAMILIES for e in examples(f, 200, 5, "heldout")}
    assert not any(f"user\n{prompt}<" in text for prompt in held for text in texts)
