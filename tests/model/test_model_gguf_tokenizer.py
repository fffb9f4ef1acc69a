"""The tokenizer of a GGUF file gives the ids that its checkpoint's own gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from checkpoints import SENTENCES
from checkpoints_any import random_checkpoint
from gguf_files import Contents, contents_of
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, LlamaTokenizer, PreTrainedTokenizerFast

from saelens_steer.errors import InputError
from saelens_steer.model import load_model
from saelens_steer.model.gguf import from_gguf

TEXTS = [
    "def add(a, b):\n    return 12345  + 7",
    "Let's see: it's 3,141 or   27 18 281.",
    "  two spaces\n\n\ta tab and trailing   ",
    "naïve café — e\u0301 ﬁ 你好 🙂",
    "<|im_start|>user\nhi<|im_end|>\n",
]
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def tokenizer_of(file: Path) -> Any:
    return from_gguf(str(file), file).tokenizer


def byte_level(pre_tokenizer: Any, **options: Any) -> PreTrainedTokenizerFast:
    """A byte-level BPE that splits text as `pre_tokenizer` does."""
    own = Tokenizer(models.BPE(**options))
    own.pre_tokenizer, own.decoder = pre_tokenizer, decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|begin_of_text|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=386, special_tokens=special, initial_alphabet=alphabet)
    own.train_from_iterator([*SENTENCES, *TEXTS], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=own,
        bos_token="<|begin_of_text|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
    )


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_checkpoint("llama2", tmp_path_factory.mktemp("llama"), vocab_size=394)


def with_tokenizer(folder: Path, tokenizer: Any, pre: str) -> Contents:
    """The checkpoint in a folder with another tokenizer of the same size."""
    tokenizer.save_pretrained(folder)
    return contents_of(folder, pre)


GPT2 = pre_tokenizers.ByteLevel(add_prefix_space=False)
SPLITS: dict[str, Any] = {
    "gpt-2": GPT2,
    "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), GPT2]),
    "starcoder": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), GPT2]),
    "llama-bpe": pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA3), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    ),
}


@pytest.mark.parametrize("pre", SPLITS)
def test_text_is_split_as_the_file_says(tmp_path: Path, llama: Path, pre: str) -> None:
    own = byte_level(SPLITS[pre])
    contents = with_tokenizer(llama, own, pre)
    tokenizer = tokenizer_of(contents.write(tmp_path / "model.gguf"))
    for text in TEXTS:
        assert tokenizer(text)["input_ids"] == own(text)["input_ids"], text
        assert tokenizer.decode(own(text)["input_ids"]) == own.decode(own(text)["input_ids"])


def test_a_word_of_llama_3s_vocabulary_is_one_token_without_merges(
    tmp_path: Path, llama: Path
) -> None:
    contents = with_tokenizer(llama, byte_level(SPLITS["llama-bpe"]), "llama-bpe")
    words = [*contents.keys["tokenizer.ggml.tokens"]]
    words[390] = "zyxwv"  # no merges lead to it
    file = contents.but({"tokenizer.ggml.tokens": words}).write(tmp_path / "model.gguf")
    assert 390 in tokenizer_of(file)("zyxwv")["input_ids"]


@pytest.mark.parametrize(
    ("pre", "stated", "begins"),
    [
        ("llama-bpe", None, True),
        ("llama-bpe", False, False),
        ("gpt-2", None, False),
        ("gpt-2", True, True),
        ("smollm", False, False),
    ],
)
def test_a_text_begins_with_bos_if_the_file_or_its_kind_says_so(
    tmp_path: Path, llama: Path, pre: str, stated: bool | None, begins: bool
) -> None:
    contents = with_tokenizer(llama, byte_level(SPLITS[pre]), pre)
    keys = {"tokenizer.ggml.add_bos_token": stated}
    model = load_model(contents.but(keys).write(tmp_path / "model.gguf"))
    tokens = model.to_tokens("def")[0].tolist()
    assert tokens.count(contents.keys["tokenizer.ggml.bos_token_id"]) == int(begins)
    assert model.cfg.default_prepend_bos is begins


def test_a_vocabulary_of_another_kind_or_none_is_refused(tmp_path: Path, llama: Path) -> None:
    contents = contents_of(llama, "gpt-2")
    for kind in ("rwkv", "bert", "no_vocab", None):
        file = contents.but({"tokenizer.ggml.model": kind}).write(tmp_path / "model.gguf")
        with pytest.raises(InputError, match=r"load_model\(…, tokenizer=…\)"):
            load_model(file)
        assert load_model(file, tokenizer=AutoTokenizer.from_pretrained(llama)).tokenizer


def test_a_split_that_is_not_known_is_refused_by_name(tmp_path: Path, llama: Path) -> None:
    contents = contents_of(llama, "viking")
    with pytest.raises(InputError, match="'viking'"):
        tokenizer_of(contents.write(tmp_path / "model.gguf"))


@pytest.mark.parametrize("pre", ["default", None])
def test_a_split_that_is_not_named_is_warned_of(
    tmp_path: Path, llama: Path, pre: str | None
) -> None:
    contents = contents_of(llama).but({"tokenizer.ggml.pre": pre})
    file = contents.write(tmp_path / "model.gguf")
    with pytest.warns(UserWarning, match=r"tokenizer\.ggml\.pre"):
        tokenizer_of(file)


def test_more_tokens_than_rows_are_refused(tmp_path: Path, llama: Path) -> None:
    contents = contents_of(llama, "gpt-2")
    for name in ("tokens", "token_type"):
        key = f"tokenizer.ggml.{name}"
        more = ["more", "tokens"] if name == "tokens" else [1, 1]
        contents = contents.but({key: [*contents.keys[key], *more]})
    with pytest.raises(InputError, match="embeds only"):
        tokenizer_of(contents.write(tmp_path / "model.gguf"))


def sentencepiece(add_prefix_space: bool) -> LlamaTokenizer:
    """A vocabulary of SentencePiece's kind, with bytes for what it lacks."""
    own = Tokenizer(models.BPE(byte_fallback=True))
    own.normalizer = normalizers.Replace(" ", "▁")
    trainer = trainers.BpeTrainer(vocab_size=120, special_tokens=["<unk>", "<s>", "</s>"])
    own.train_from_iterator(SENTENCES, trainer)
    words = sorted(own.get_vocab(), key=lambda word: own.get_vocab()[word])
    words[3:3] = [f"<0x{byte:02X}>" for byte in range(256)]
    vocabulary = {word: i for i, word in enumerate(words)}
    merges = [(a, b) for a in words for b in words if a + b in vocabulary]
    merges.sort(key=lambda pair: vocabulary["".join(pair)])
    options = {"add_prefix_space": add_prefix_space, "add_bos_token": True}
    return LlamaTokenizer(vocabulary, merges, **options)


@pytest.mark.parametrize("leading", [True, False])
def test_a_sentencepiece_vocabulary_gives_its_own_ids(
    tmp_path: Path, llama: Path, leading: bool
) -> None:
    own = sentencepiece(leading)
    words = sorted(own.get_vocab(), key=lambda word: own.get_vocab()[word])
    rows = 394
    pads = [f"[PAD{i}]" for i in range(len(words), rows)]
    kinds = [2, 3, 3] + [6] * 256 + [1] * (len(words) - 259) + [5] * len(pads)
    keys = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": None,
        "tokenizer.ggml.merges": None,
        "tokenizer.ggml.tokens": [*words, *pads],
        "tokenizer.ggml.scores": [float(-i) for i in range(rows)],
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.add_space_prefix": leading,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.add_bos_token": None,  # these begin with BOS
    }
    tokenizer = tokenizer_of(contents_of(llama).but(keys).write(tmp_path / "model.gguf"))
    for text in TEXTS:
        ids = own(text)["input_ids"]
        assert ids[0] == 1
        assert tokenizer(text)["input_ids"] == ids, text
        assert tokenizer.decode(ids[1:]) == own.decode(ids[1:])
