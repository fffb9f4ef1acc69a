"""A byte-level BPE tokenizer that has delimiters among its entries, and a .jsonl writer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

TEMPLATE = (
    "{% for m in messages %}"
    "{% if m.role == 'system' and m.content == 'refuse' %}{{ raise_exception('no system') }}"
    "{% endif %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
TEXTS = [
    "Write a function and a formula. print ('hello') $$ x^2 $$ and $ y $ now",
    "``` python\n ``` \n```\n \\( a \\) \\[ b \\] the naïve café €",
]


def build_tokenizer(**options: Any) -> PreTrainedTokenizerFast:
    """A new tokenizer; options go to PreTrainedTokenizerFast."""
    tokenizer = Tokenizer(models.BPE())
    cut = Regex(r" ?\$+| ?```| ?\\[(\[]| ?\p{L}+| ?[^\s\p{L}]|\s+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(cut, behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS * 4, trainer)
    tokenizer.add_tokens([AddedToken("<think>", special=False)])
    tokenizer.add_special_tokens([AddedToken("<|reserved|>", special=True)])
    names = {
        "pad_token": "<|endoftext|>",
        "eos_token": "<|im_end|>",
        "additional_special_tokens": ["<|im_start|>"],
        "chat_template": TEMPLATE,
    }
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **(names | options))


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """Shared: leave it as it is."""
    return build_tokenizer()


@pytest.fixture
def new_tokenizer() -> Callable[..., PreTrainedTokenizerFast]:
    """Builds a tokenizer of the test's own."""
    return build_tokenizer


@pytest.fixture
def jsonl(tmp_path: Path) -> Callable[..., Path]:
    """Writes rows (dicts or raw lines) to a .jsonl file."""

    def write(*rows: dict[str, Any] | str, name: str = "set.jsonl") -> Path:
        lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
        path = tmp_path / name
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return write
