"""Random weights of a Qwen3's shape in both libraries, prompts of random tokens, and tasks on them.

What is measured on them costs what the real checkpoint costs; what they write means nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen3Config

from benchmarks.side_by_side import Bench
from saelens_steer.model.load import LoadRequest, _hooked_transformer
from saelens_steer.sweeps.measurement import BATCH_TOKENS

N_CTX = 512
PAD, STOP = "<|endoftext|>", "<|im_end|>"
SPECIAL = (PAD, "<|im_start|>", STOP)
NAMED = (*SPECIAL, "a", "$", "$$", r"\(", r"\[", "```")
"""The first entries of the vocabulary; the rest are w9, w10, …"""
HEAD, TAIL = 10, 5
"""Tokens that all prompts begin and end with, as those of one chat template do."""


@dataclass(frozen=True)
class Shape:
    """The sizes of a dense Qwen3 with tied embeddings."""

    n_layers: int
    d_model: int
    n_heads: int
    n_kv: int
    d_head: int
    d_mlp: int
    d_vocab: int
    rope_theta: float = 5e6


QWEN3_4B = Shape(
    n_layers=36, d_model=2560, n_heads=32, n_kv=8, d_head=128, d_mlp=9728, d_vocab=151_936
)


@dataclass(frozen=True)
class Pair:
    """The same weights twice, on one device: two copies in memory."""

    model: Any
    """The HookedTransformer."""
    hugging_face: Any


@cache
def random_pair(shape: Shape, dtype: torch.dtype, device: str, seed: int = 0) -> Pair:
    """Random weights, drawn on the device; a HookedTransformer of them as load_model makes it.

    Special tokens have the logit 0 always, so none is ever the most likely: no row stops early.
    """
    config = qwen3_config(shape)
    with torch.random.fork_rng(), torch.device(device):
        torch.manual_seed(seed)
        hf = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="sdpa")
        for name, weight in hf.named_parameters():
            if "norm" in name:  # norms of one would hide a norm that is applied twice
                weight.data.uniform_(0.5, 1.5)
    hf.model.embed_tokens.weight.data[: len(SPECIAL)] = 0
    words = tokenizer(shape.d_vocab)
    spec = LoadRequest(
        name="random-qwen3", tokenizer=words, dtype=dtype, device=device, n_ctx=N_CTX
    )
    model = _hooked_transformer(hf.eval(), spec)
    return Pair(model, hf.to(device))  # it was moved to the CPU on the way


def qwen3_config(shape: Shape) -> Qwen3Config:
    """The config of such a checkpoint; weights are drawn so that sums over d_model stay near 1."""
    return Qwen3Config(
        architectures=["Qwen3ForCausalLM"],
        vocab_size=shape.d_vocab,
        hidden_size=shape.d_model,
        intermediate_size=shape.d_mlp,
        num_hidden_layers=shape.n_layers,
        num_attention_heads=shape.n_heads,
        num_key_value_heads=shape.n_kv,
        head_dim=shape.d_head,
        max_position_embeddings=N_CTX,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta},
        tie_word_embeddings=True,
        initializer_range=shape.d_model**-0.5,
        eos_token_id=SPECIAL.index(STOP),
        pad_token_id=SPECIAL.index(PAD),
        bos_token_id=None,
    )


@cache
def tokenizer(d_vocab: int) -> PreTrainedTokenizerFast:
    """A word for every row of the unembedding, so that margins read as many as a real one's."""
    words = [*NAMED, *(f"w{i}" for i in range(len(NAMED), d_vocab))]
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="a"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        eos_token=STOP,
        pad_token=PAD,
        additional_special_tokens=["<|im_start|>"],
    )


@dataclass(frozen=True)
class RandomBench(Bench):
    """Random weights, prompts of random tokens that begin and end alike, random directions."""

    source: str = "random"
    shape: Shape = QWEN3_4B
    dtype: torch.dtype = torch.bfloat16
    device: str = "cuda"
    prompt_tokens: tuple[int, int] = (48, 72)
    """The fewest and the most that a prompt has."""

    @property
    def pair(self) -> Pair:
        return random_pair(self.shape, self.dtype, self.device)

    @property
    def model(self) -> Any:
        """The HookedTransformer."""
        return self.pair.model

    @property
    def hugging_face(self) -> Any:
        """The same weights in transformers."""
        return self.pair.hugging_face

    @cached_property
    def prompts(self) -> list[list[int]]:
        """Token ids."""
        draw = torch.Generator().manual_seed(1)
        head, tail = (self._tokens(n, draw) for n in (HEAD, TAIL))
        lengths = _between(self.prompt_tokens, self.n_prompts, draw)
        return [[*head, *self._tokens(n - HEAD - TAIL, draw), *tail] for n in lengths]

    @cached_property
    def texts(self) -> list[str]:
        """The prompts as text."""
        return _written(self.prompts)

    def random_texts(self, n: int, n_tokens: tuple[int, int]) -> list[str]:
        """Texts of random words, of so many tokens at least and at most."""
        draw = torch.Generator().manual_seed(2)
        return _written([self._tokens(k, draw) for k in _between(n_tokens, n, draw)])

    def push(self, direction: int, alpha: float) -> torch.Tensor:
        """What a cell adds, [d_model], as the model holds it."""
        return super().push(direction, alpha).to(self.device, self.dtype)

    def sizes(self) -> dict[str, Any]:
        """What was measured, for the JSON line."""
        return super().sizes() | {"dtype": str(self.dtype).removeprefix("torch.")}

    def _tokens(self, n: int, draw: torch.Generator) -> list[int]:
        return torch.randint(len(NAMED), self.shape.d_vocab, (n,), generator=draw).tolist()


def _written(rows: Sequence[Sequence[int]]) -> list[str]:
    return [" ".join(f"w{i}" for i in ids) for ids in rows]


def _between(ends: tuple[int, int], n: int, draw: torch.Generator) -> list[int]:
    return torch.randint(ends[0], ends[1] + 1, (n,), generator=draw).tolist()


@dataclass(frozen=True)
class Amounts:
    """How much is written, cached and trained."""

    new_tokens: int = 64
    n_texts: int = 3000
    text_tokens: tuple[int, int] = (64, 192)
    """The fewest and the most that a cached text has."""
    d_sae: int = 4096
    k: int = 32
    batch_tokens: int = 4096
    """Vectors in a training step."""
    context_size: int = 256
    cached_batches: int = 64
    steps: int = 300


@dataclass(frozen=True)
class Task:
    """One call of the benchmark: on what, how much, and how often."""

    bench: RandomBench
    amounts: Amounts
    repeats: int
    sample: int
    """Rows on which loops are timed."""

    @property
    def batch_tokens(self) -> int:
        """As a config has it that does not say."""
        return BATCH_TOKENS["cpu" if self.bench.device == "cpu" else "gpu"]

    def clock(self) -> float:
        """Seconds, once everything that was asked of the device is done."""
        if self.bench.device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter()

    def peak_gib(self, run: Callable[[], Any]) -> float | None:
        """The most GPU memory while something runs, models among it; None on a CPU."""
        if self.bench.device == "cpu":
            run()
            return None
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        run()
        torch.cuda.synchronize()
        return round(torch.cuda.max_memory_allocated() / 2**30, 2)
