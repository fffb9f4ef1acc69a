"""The tokenizer and chat template in a GGUF file, made to split text as its checkpoint's own does.

transformers rebuilds the vocabulary, but not all of the pre-tokenization: it misses that SmolLM2
and StarCoder split digits, that Llama 3 keeps words of its vocabulary whole, and that some
SentencePiece vocabularies put no space before text.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Any

from tokenizers import decoders, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from saelens_steer.errors import InputError, one_line
from saelens_steer.model.gguf.header import GGUF_DAMAGE, GgufFile

LLAMA3 = ("llama3", "llama-v3", "llama-bpe", "falcon3", "pixtral")
WHOLE_WORDS = (*LLAMA3, "tekken")
"""Vocabularies in which a word of the vocabulary is one token, and texts begin with BOS."""
QWEN = ("qwen2", "qwen35")
SPLIT = (*WHOLE_WORDS, *QWEN, "deepseek-r1-qwen", "megrez", "dbrx", "smaug-bpe", "gpt-4o", "llama4")
"""Names for which transformers has the pattern."""
DIGITS = ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b")
"""GPT-2's pattern, after each digit has been split off."""
GPT2 = ("gpt-2", "phi-2", "mpt", "olmo", "jais", "exaone4")
UNNAMED = ("", "default")
MODELS = ("gpt2", "llama")
"""llama.cpp's names for byte-level BPE and SentencePiece."""


def gguf_tokenizer(file: GgufFile) -> PreTrainedTokenizerBase:
    """The tokenizer of a file; InputError if it holds none, or one that cannot be rebuilt."""
    kind, pre = (str(file.values.get(f"tokenizer.ggml.{key}", "")) for key in ("model", "pre"))
    if kind not in MODELS:
        what = f"a tokenizer of type {kind!r}" if kind else "no tokenizer"
        raise InputError(f"{file.path} holds {what}: {ELSEWHERE}")
    known = (*SPLIT, *DIGITS, *GPT2, *UNNAMED)
    if kind == "gpt2" and pre not in known:
        raise InputError(f"{file.path} splits text as {pre!r}, which is not supported: {ELSEWHERE}")
    adds_bos = kind == "llama" or pre in WHOLE_WORDS  # unless the file says
    tokenizer = _from_transformers(file, adds_bos)
    if len(tokenizer) > (rows := file.shapes["token_embd.weight"][0]):
        raise InputError(f"{file.path} has {len(tokenizer)} tokens, but embeds only {rows}")
    backend: Any = tokenizer.backend_tokenizer
    if kind == "gpt2":
        _split_as(file, backend, pre)
    elif file.values.get("tokenizer.ggml.add_space_prefix") is False:
        _without_leading_space(backend)
    tokenizer.name_or_path = str(file.path)
    return tokenizer


ELSEWHERE = "pass its checkpoint's own tokenizer, load_model(…, tokenizer=…)"


def _from_transformers(file: GgufFile, adds_bos: bool) -> Any:
    """transformers' tokenizer of the file, read alone in a folder: files beside it would win."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "model.gguf").symlink_to(file.path.resolve())
            return PreTrainedTokenizerFast.from_pretrained(
                folder, gguf_file="model.gguf", add_bos_token=adds_bos, local_files_only=True
            )
    except (*GGUF_DAMAGE, RuntimeError) as error:
        raise InputError(
            f"the tokenizer in {file.path} cannot be read ({one_line(error)}): {ELSEWHERE}"
        ) from error


def _split_as(file: GgufFile, backend: Any, pre: str) -> None:
    """Make a byte-level tokenizer split text into words in the way that the file names."""
    if pre in DIGITS:
        gpt2 = pre_tokenizers.ByteLevel(add_prefix_space=False)
        digits = pre_tokenizers.Digits(individual_digits=True)
        backend.pre_tokenizer = pre_tokenizers.Sequence([digits, gpt2])
    elif pre in SPLIT and not isinstance(backend.pre_tokenizer, pre_tokenizers.Sequence):
        raise InputError(f"this version of transformers cannot split text as {pre!r}: {ELSEWHERE}")
    elif pre in UNNAMED:
        warnings.warn(
            f"{file.path} does not state how its tokenizer splits text (tokenizer.ggml.pre), so "
            f"GPT-2's pattern is used; if that is wrong, {ELSEWHERE}",
            UserWarning,
            stacklevel=2,
        )
    if pre in WHOLE_WORDS:
        backend.model.ignore_merges = True
    if pre in QWEN and file.architecture.startswith("qwen"):
        backend.normalizer = normalizers.NFC()


def _without_leading_space(backend: Any) -> None:
    """Keep a SentencePiece tokenizer from putting a space before the text; Gemma's does not."""
    if isinstance(backend.pre_tokenizer, pre_tokenizers.Metaspace):
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=False)
        parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        backend.decoder = decoders.Sequence(parts)
