"""The tiny model's tokenizer: byte-level BPE with Qwen's special tokens and chat format."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from scripts.tiny.grammar import examples
from scripts.tiny.texts import python_source

PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
VOCABULARY = 1280

PIECES = "|".join(
    (
        r"\$\$",  # the LaTeX delimiter, always alone
        r"```",  # the code fence, always alone
        r" ?\p{N}",  # digits one by one
        r"\\\p{L}+",  # a LaTeX command
        r"[ _]?\p{L}+",  # a word, or a part of a snake_case name
        r" ?(?:(?!\$\$|```)[^\s\p{L}\p{N}])+",  # other marks
        r"\n+[ \t]*",  # a new line and its indentation
        r"\s+(?=\S)",
        r"\s+",
    )
)
"""How text is split before byte pairs are merged."""

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)
"""Qwen's ChatML, without tools."""


SHOWN = {"code": 6000, "math": 4000, "mixed": 8000, "prose": 2000, "transport": 2000}
"""Examples per family from which merges are learned."""


def train_tokenizer(seed: int = 0) -> PreTrainedTokenizerFast:
    """Train a tokenizer on the grammar and a little of the standard library."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(seed), trainer)
    return wrap(tokenizer)


def wrap(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """The tokenizer as Hugging Face loads it: no BOS, EOS is `<|im_end|>`, left padding."""
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[START],
        model_max_length=512,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write the files that `AutoTokenizer.from_pretrained` reads."""
    tokenizer.save_pretrained(folder)


def _texts(seed: int) -> Iterable[str]:
    for family, n in SHOWN.items():
        yield from _lines(family, n, seed)
    yield from python_source(seed, pieces=60)


def _lines(family: str, n: int, seed: int) -> Iterator[str]:
    roles = "user\nassistant\nsystem\n"
    for example in examples(family, n, seed):
        yield f"{roles}{example.prompt}\n{example.answer}"
