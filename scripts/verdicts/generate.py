"""Write completions of a small model, with and without steering, one JSON line each.

    python -m scripts.verdicts.generate tiny-qwen3 OUT
    python -m scripts.verdicts.generate MODEL_FOLDER OUT    # of SmolLM2-135M-Instruct

Stopped and started again, it continues after the last batch.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

import saelens_steer as ss
from saelens_steer.data import pad_left
from saelens_steer.metrics import completion_of
from saelens_steer.model import generate, stop_token_ids
from scripts.verdicts.prompts import Message, conversations

BATCH = 40
TINY_SETS = ("tiny-domains", "tiny-domains-heldout", "tiny-code-math-mixed")


@dataclass(frozen=True)
class Condition:
    """How one batch of completions is generated."""

    temperature: float
    max_new_tokens: int
    seed: int
    push: str = "none"
    """A domain (its mean minus that of prose), or `random`."""
    size: float = 0.0
    """Length of the push, in mean norms of the residual stream at the middle layer."""
    example: bool = False


SMOLLM2 = (
    Condition(0.0, 80, 0, example=True),
    Condition(0.7, 60, 1),
    Condition(1.0, 60, 2, example=True),
    Condition(0.7, 56, 3, "random", 0.6, example=True),
    Condition(1.4, 48, 4, example=True),
    Condition(0.7, 56, 5, "math", 0.6),
    Condition(0.7, 28, 6, example=True),
    Condition(1.0, 56, 7, "code", -0.4, example=True),
    Condition(0.7, 60, 8, "math", -0.5, example=True),
    Condition(1.0, 40, 9, "random", 1.0),
    Condition(0.7, 56, 10, "code", 0.6),
    Condition(1.0, 56, 11, "math", 0.3, example=True),
    Condition(1.4, 48, 12),
    Condition(0.7, 60, 13, example=True),
    Condition(0.0, 60, 14, "both", 0.5),
    Condition(1.0, 28, 15, "random", 0.4, example=True),
    Condition(0.0, 80, 16),
    Condition(1.0, 60, 17),
    Condition(1.2, 96, 18, example=True),
    Condition(0.7, 20, 19, example=True),
    Condition(1.4, 80, 20, example=True),
    Condition(1.0, 20, 21, "math", 0.4, example=True),
    Condition(1.0, 60, 22, "random", 1.5),
    Condition(1.0, 72, 23, "code", 0.6, example=True),
    Condition(1.2, 72, 24, "math", 0.6, example=True),
    Condition(0.7, 72, 25, "random", 1.0, example=True),
    Condition(1.4, 60, 26, "math", 1.0),
    Condition(1.0, 72, 27, "random", 0.8, example=True),
    Condition(0.7, 60, 28, "both", 1.0, example=True),
    Condition(1.0, 60, 29, "code", -1.0),
    Condition(0.7, 60, 30, "random", 2.0, example=True),
    Condition(1.7, 60, 31, example=True),
    Condition(1.0, 60, 32),
    Condition(0.9, 60, 33),
    Condition(0.9, 60, 34, example=True),
)
TINY = (
    Condition(0.0, 60, 0),
    Condition(0.7, 60, 1),
    Condition(1.0, 40, 2),
    Condition(1.4, 60, 3),
    Condition(1.0, 60, 4, "random", 1.0),
    Condition(0.7, 60, 5, "random", 2.0),
    Condition(1.0, 20, 6, "math", 0.5),
    Condition(1.0, 20, 7, "code", 0.5),
    Condition(0.7, 60, 8, "math", 1.5),
    Condition(0.7, 60, 9, "code", -1.0),
)


def main(name: str, out: str) -> None:
    """Completions of the shipped model, or of SmolLM2 from its folder."""
    Path(out).mkdir(parents=True, exist_ok=True)
    with_example, without = conversations(True), conversations(False)
    if name == "tiny-qwen3":
        shipped = {
            f"{source}/{p.id}": [{"role": "user", "content": p.text}]
            for source in TINY_SETS
            for p in ss.load_prompts(source)[:: 1 if "mixed" in source else 3]
        }
        write(ss.load_model(name), name, TINY, shipped | without, {}, Path(out))
    else:
        smollm2 = ss.load_model(name, model_class="TransformerBridge")
        write(smollm2, "SmolLM2-135M-Instruct", SMOLLM2, without, with_example, Path(out))


def write(
    model: Any,
    name: str,
    conditions: Sequence[Condition],
    without: dict[str, list[Message]],
    with_example: dict[str, list[Message]],
    out: Path,
) -> None:
    """One file per condition and batch of prompts."""
    pushes = directions(model, without)
    for condition in conditions:
        asked = with_example if condition.example else without
        for part, keys in enumerate(batches(sorted(asked))):
            file = out / f"{name}-{condition.seed:02}-{part:02}.jsonl"
            if file.exists():
                continue
            rows = completions(model, [asked[k] for k in keys], condition, pushes)
            about = {"model": name, **asdict(condition)}
            lines = [json.dumps(about | {"prompt": k} | r) for k, r in zip(keys, rows, strict=True)]
            file.with_suffix(".part").write_text("\n".join(lines) + "\n")
            file.with_suffix(".part").rename(file)
            print(file.name, len(lines), flush=True)


def batches(keys: list[str]) -> Iterator[list[str]]:
    """Every n-th key, so that all domains are in each batch."""
    n = -(-len(keys) // BATCH)
    yield from (keys[i::n] for i in range(n))


def directions(model: Any, asked: dict[str, list[Message]]) -> dict[str, torch.Tensor]:
    """Difference of means from prose, of length 1 mean norm; the mean norm itself as `norm`."""
    prompts = [
        ss.Prompt(key.replace("/", "-"), turns[-1]["content"], domain_of(key))
        for key, turns in asked.items()
    ]
    acts = ss.cache_activations(model, prompts, hook_name=ss.default_hook_name(model))
    norm = acts.vectors.norm(dim=-1).mean()
    found = {d: ss.difference_of_means(acts, d, "prose") * norm for d in ("code", "math", "both")}
    return found | {"norm": norm}


def domain_of(key: str) -> str:
    """`code` of `tiny-domains/code-01` and of `code-01`; the shipped `mixed` is `both`."""
    domain = key.rsplit("/", 1)[-1].split("-")[0]
    return {"mixed": "both"}.get(domain, domain)


@torch.no_grad()
def completions(
    model: Any, asked: list[list[Message]], how: Condition, pushes: dict[str, torch.Tensor]
) -> list[dict[str, Any]]:
    """Completion, whether the limit cut it, and its tokens, of each conversation."""
    tokenizer = model.tokenizer
    system = [{"role": "system", "content": "Be brief."}]
    rows = [
        tokenizer.apply_chat_template(
            system + turns, add_generation_prompt=True, return_dict=True, enable_thinking=False
        )["input_ids"]
        for turns in asked
    ]
    tokens, mask = pad_left(rows, tokenizer, d_vocab=model.cfg.d_vocab)
    steering: Any = nullcontext()
    if how.push != "none":
        push = pushes.get(how.push)
        if push is None:
            drawn = ss.draw_controls("isotropic", 1, d_model=model.cfg.d_model, seed=how.seed)
            push = drawn[0] * pushes["norm"]
        steering = ss.steered(model, ss.add(push, how.size), ss.default_hook_name(model))
    with steering:
        new = generate(model, tokens, mask, how.max_new_tokens, how.temperature, (how.seed,))
    stops = stop_token_ids(model)
    return [completion_of(tokenizer, ids, stops) for ids in new.tolist()]


if __name__ == "__main__":
    main(*sys.argv[1:])
