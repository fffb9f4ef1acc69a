"""Train the shipped tiny model: `python -m scripts.tiny.train`.

A `Qwen3ForCausalLM`, trained on the grammar's chats and a little Python source. An interrupted run
resumes from its last checkpoint if started again with the same arguments.
"""

from __future__ import annotations

import argparse
import math
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from saelens_steer.model.snapshot import TINY_WEIGHTS
from scripts.tiny.texts import corpus_texts, python_source
from scripts.tiny.tokenizer import END, PAD, save_tokenizer, train_tokenizer

ROWS, CONTEXT = 32, 256
PEAK, FLOOR, WARM_UP, DECAY = 3e-3, 1e-4, 80, 0.05
SOURCE_SHARE = 0.055
"""Share of texts that are Python source; being long, they make up about a tenth of the tokens."""


def main() -> None:
    """Parse the arguments, train and save."""
    parser = argparse.ArgumentParser(description="Train the tiny model.")
    parser.add_argument("--out", type=Path, default=TINY_WEIGHTS)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--autocast", action="store_true", help="bfloat16 matrix products")
    train(**vars(parser.parse_args()))


def train(
    out: Path, steps: int, seed: int, device: str = "auto", threads: int = 2, autocast: bool = False
) -> None:
    """Train for `steps` steps and write the Hugging Face folder `out`."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    device = _device(device)
    tokenizer = train_tokenizer(seed)
    model = Qwen3ForCausalLM(configuration(tokenizer))
    torch.nn.Module.to(model, device)
    optimizer = _optimizer(model)
    kept = out.with_name(out.name + ".checkpoint")
    began, start = time.monotonic(), _resume(kept, model, optimizer)
    for step in range(start, steps):
        _set_rate(optimizer, _rate(step, steps))
        loss = _step(model, optimizer, batch(step, seed, tokenizer).to(device), autocast)
        _report(step, start, steps, loss, began)
        if step % 100 == 99:
            _checkpoint(kept, step + 1, model, optimizer)
            save(model, tokenizer, kept / "model")
    save(model, tokenizer, out)
    shutil.rmtree(kept, ignore_errors=True)


def _device(name: str) -> str:
    if name != "auto":
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"


def configuration(tokenizer: PreTrainedTokenizerFast) -> Qwen3Config:
    """The architecture: eight layers of width 192, grouped queries, tied embeddings."""
    return Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=8,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=512,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=_id(tokenizer, END),
        pad_token_id=_id(tokenizer, PAD),
    )


def _id(tokenizer: PreTrainedTokenizerFast, token: str) -> int:
    return tokenizer.get_vocab()[token]


def batch(step: int, seed: int, tokenizer: PreTrainedTokenizerFast) -> Tensor:
    """Token ids [ROWS, CONTEXT] of one step; each row begins at the start of a text."""
    texts = _texts(seed * 1_000_003 + step, tokenizer)
    return torch.tensor([_row(texts, tokenizer) for _ in range(ROWS)])


def _texts(seed: int, tokenizer: PreTrainedTokenizerFast) -> Iterator[str]:
    rng = random.Random(f"batch/{seed}")
    source = python_source(seed, pieces=10_000, lines=6)
    for text in corpus_texts(10_000, seed, tokenizer):
        if rng.random() < SOURCE_SHARE:
            yield next(source) + PAD
        yield text


def _row(texts: Iterator[str], tokenizer: PreTrainedTokenizerFast) -> list[int]:
    ids: list[int] = []
    while len(ids) < CONTEXT:
        ids += tokenizer(next(texts))["input_ids"]
    return ids[:CONTEXT]


def _step(
    model: Qwen3ForCausalLM, optimizer: torch.optim.Optimizer, ids: Tensor, autocast: bool
) -> float:
    with torch.autocast(ids.device.type, dtype=torch.bfloat16, enabled=autocast):
        loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


def _optimizer(model: Qwen3ForCausalLM) -> torch.optim.Optimizer:
    matrices = [p for p in model.parameters() if p.ndim > 1]
    gains = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": matrices}, {"params": gains, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=PEAK, betas=(0.9, 0.95), weight_decay=DECAY)


def _rate(step: int, steps: int) -> float:
    if step < WARM_UP:
        return PEAK * (step + 1) / WARM_UP
    done = (step - WARM_UP) / max(1, steps - WARM_UP)
    return FLOOR + (PEAK - FLOOR) * (1 + math.cos(math.pi * done)) / 2


def _set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def _report(step: int, start: int, steps: int, loss: float, began: float) -> None:
    each = (time.monotonic() - began) / (step + 1 - start)
    left = each * (steps - step - 1) / 60
    if step % 10 == 9:
        print(f"step {step + 1}/{steps}  loss {loss:.3f}  {each:.2f} s/step  {left:.0f} min left",
              flush=True)  # fmt: skip


def _checkpoint(
    folder: Path, step: int, model: Qwen3ForCausalLM, optimizer: torch.optim.Optimizer
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    state = {"step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(state, folder / "state.tmp")
    (folder / "state.tmp").replace(folder / "state.pt")


def _resume(folder: Path, model: Qwen3ForCausalLM, optimizer: torch.optim.Optimizer) -> int:
    if not (folder / "state.pt").exists():
        return 0
    state = torch.load(folder / "state.pt", weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return state["step"]


def save(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write a bfloat16 copy of the model, with its tokenizer."""
    copy = Qwen3ForCausalLM(model.config)
    torch.nn.Module.to(copy, torch.bfloat16)
    copy.load_state_dict(model.state_dict())
    copy.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    save_tokenizer(tokenizer, folder)


if __name__ == "__main__":
    main()
