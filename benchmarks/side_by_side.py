"""What the benchmarks share: the tiny model twice, its prompts, and clocks that are fair."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

import saelens_steer as ss
from saelens_steer.config import TemplateSpec
from saelens_steer.data import encode_prompts
from saelens_steer.model.snapshot import TINY_WEIGHTS
from saelens_steer.steering import Directions, plain_directions
from scripts.tiny.grammar import examples


@dataclass(frozen=True)
class Bench:
    """The shipped model in both libraries, prompts, directions and strengths."""

    n_prompts: int
    n_directions: int
    alphas: tuple[float, ...]
    source: str = "tiny"

    @property
    def model(self) -> Any:
        """The HookedTransformer."""
        return hooked()

    @property
    def hugging_face(self) -> Any:
        """The same checkpoint in transformers, float32."""
        return hugging_face()

    @property
    def layer(self) -> int:
        return self.model.cfg.n_layers // 2

    @property
    def hook_name(self) -> str:
        return f"blocks.{self.layer}.hook_resid_pre"

    @cached_property
    def texts(self) -> list[str]:
        """The prompts. `tiny`: requests of the kind that the tiny model was trained on, held out;
        otherwise a prompt set by name."""
        if self.source == "tiny":
            drawn = examples("mixed", 2 * self.n_prompts, 7, "heldout")
            given = list(dict.fromkeys(example.prompt for example in drawn))[: self.n_prompts]
        else:
            given = [prompt.text for prompt in ss.load_prompts(self.source, self.n_prompts)]
        if len(given) < self.n_prompts:
            raise SystemExit(f"{self.source} has {len(given)} prompts, not {self.n_prompts}")
        return given

    @cached_property
    def prompts(self) -> list[list[int]]:
        """Token ids, to the assistant start."""
        return token_ids(tuple(self.texts))

    @cached_property
    def directions(self) -> Directions:
        """Random unit vectors."""
        draw = torch.Generator().manual_seed(0)
        vectors = torch.randn(self.n_directions, self.model.cfg.d_model, generator=draw)
        return plain_directions(vectors / vectors.norm(dim=-1, keepdim=True))

    def push(self, direction: int, alpha: float) -> Tensor:
        """What a cell adds, [d_model]."""
        return alpha * self.directions.vectors[direction]

    def sizes(self) -> dict[str, Any]:
        """What was measured, for the JSON line."""
        lengths = [len(p) for p in self.prompts]
        return {
            "prompts": self.n_prompts,
            "tokens_per_prompt": round(sum(lengths) / len(lengths), 1),
            "directions": self.n_directions,
            "alphas": len(self.alphas),
            "rows": self.n_prompts * self.n_directions * len(self.alphas),
            "source": self.source,
            "threads": torch.get_num_threads(),
        }


@cache
def hooked() -> Any:
    """The shipped model, loaded once."""
    return ss.load_model("tiny-qwen3")


@cache
def hugging_face() -> Any:
    """The same in transformers."""
    plain = {"dtype": torch.float32, "trust_remote_code": False}
    return AutoModelForCausalLM.from_pretrained(TINY_WEIGHTS, **plain).eval()


@cache
def token_ids(texts: tuple[str, ...]) -> list[list[int]]:
    """Texts in the chat template, up to the assistant start."""
    encoded = encode_prompts(hooked().tokenizer, texts, TemplateSpec(chat=True))
    return [list(e.head) for e in encoded]


def strengths(n: int) -> tuple[float, ...]:
    """n strengths from −8 to 8, 0 among them where n is odd."""
    return tuple(-8 + 16 * i / (n - 1) for i in range(n)) if n > 1 else (8.0,)


def interleaved(
    paths: Mapping[str, Callable[[], Any]],
    repeats: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each path, one after the other and again, so that a busy neighbour hits all."""
    seconds: dict[str, list[float]] = {name: [] for name in paths}
    for number in range(repeats):
        for name, run in paths.items():
            start = clock()
            run()
            seconds[name].append(clock() - start)
            say(f"{number + 1}/{repeats} {name}: {seconds[name][-1]:.2f} s")
    return seconds


def medians(seconds: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """The median of each."""
    return {name: statistics.median(found) for name, found in seconds.items()}


def say(text: str) -> None:
    """Progress, beside the one line of JSON."""
    print(text, file=sys.stderr, flush=True)
