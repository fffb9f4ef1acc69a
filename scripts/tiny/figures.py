"""Measure the model card's figures on held-out prompts: `python -m scripts.tiny.figures`.

Prints figures of completions, margins and losses, and fails if one is out of bounds.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedTokenizerBase,
    Qwen3ForCausalLM,
)

from saelens_steer.metrics import code_validity, latex_validity
from saelens_steer.model.snapshot import TINY_WEIGHTS
from scripts.tiny.grammar import FAMILIES, Example, examples
from scripts.tiny.texts import chat_of, chat_text

DELIMITER = re.compile(r"^\s*(\$\$?|\\\(|\\\[)\s*$")
SEED = 1234
BATCH = 50

BOUNDS = {
    "code: valid": (0.95, 1.0),
    "math: valid": (0.95, 1.0),
    "mixed: LaTeX first": (0.30, 0.70),
    "mixed: std of the margin": (0.5, float("inf")),
}


def main() -> int:
    """Print one line per figure; returns 1 if one is out of bounds."""
    parser = argparse.ArgumentParser(description="Measure the tiny model.")
    parser.add_argument("--model", type=Path, default=TINY_WEIGHTS)
    parser.add_argument("--prompts", type=int, default=200, help="of each family")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    plain = {"trust_remote_code": False}
    model: Any = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32, **plain)
    model, tokenizer = model.eval(), AutoTokenizer.from_pretrained(arguments.model, **plain)
    found = figures(model, tokenizer, arguments.prompts)
    missed = [name for name, (low, high) in BOUNDS.items() if not low <= found[name] <= high]
    for name, value in found.items():
        print(f"{name:32} {value:7.3f}{'   OUT OF BOUNDS' if name in missed else ''}")
    return 1 if missed else 0


def figures(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerBase, n: int, max_new_tokens: int = 96
) -> dict[str, float]:
    """The card's figures for greedy completions of `n` held-out prompts per family."""
    held = {family: examples(family, n, SEED, "heldout") for family in FAMILIES}
    texts = {f: complete(model, tokenizer, held[f], max_new_tokens) for f in FAMILIES}
    found = {
        "code: valid": share(code_validity(text) == "valid" for text, _ in texts["code"]),
        "math: valid": share(latex_validity(text) == "valid" for text, _ in texts["math"]),
        "mixed: code valid": share(code_validity(text) == "valid" for text, _ in texts["mixed"]),
        "mixed: LaTeX valid": share(latex_validity(text) == "valid" for text, _ in texts["mixed"]),
    }
    found |= _first_token(margins(model, tokenizer, held["mixed"]))
    for f in FAMILIES:
        found |= _against_grammar(f, texts[f], held[f])
        found[f"{f}: loss on the answer"] = answer_loss(model, tokenizer, held[f])
    return found


def _first_token(margin: Tensor) -> dict[str, float]:
    return {
        "mixed: LaTeX first": share((margin > 0).tolist()),
        "mixed: std of the margin": margin.std().item(),
        "mixed: mean of the margin": margin.mean().item(),
    }


def _against_grammar(
    family: str, texts: Sequence[tuple[str, bool]], held: Sequence[Example]
) -> dict[str, float]:
    same = [text == example.answer for (text, _), example in zip(texts, held, strict=True)]
    return {
        f"{family}: ended": share(ended for _, ended in texts),
        f"{family}: as the grammar": share(same),
    }


def share(hits: Iterable[bool]) -> float:
    """The share of values that are true."""
    values = list(hits)
    return sum(values) / len(values)


def latex_delimiters(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids of vocabulary entries that are LaTeX delimiters."""
    ids = sorted(set(range(len(tokenizer))) - set(tokenizer.all_special_ids))
    return [i for i in ids if DELIMITER.match(str(tokenizer.decode([i])))]


def encode(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Example]) -> dict[str, Tensor]:
    """The prompts in the chat template up to the assistant's turn, left-padded."""
    chats = [[{"role": "user", "content": e.prompt}] for e in prompts]
    texts: Any = tokenizer.apply_chat_template(chats, tokenize=False, add_generation_prompt=True)
    return dict(tokenizer(texts, return_tensors="pt", padding=True, padding_side="left"))


@torch.inference_mode()
def complete(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Example],
    max_new_tokens: int,
) -> list[tuple[str, bool]]:  # fmt: skip
    """Greedy completions, each with whether it ended."""
    done: list[tuple[str, bool]] = []
    for start in range(0, len(prompts), BATCH):
        inputs = encode(tokenizer, prompts[start : start + BATCH])
        generate: Any = model.generate  # pyright: ignore[reportAttributeAccessIssue]
        ids = generate(**inputs, do_sample=False, max_new_tokens=max_new_tokens)
        answers = ids[:, inputs["input_ids"].shape[1] :]
        texts = tokenizer.batch_decode(answers, skip_special_tokens=True)
        ended = (answers == tokenizer.eos_token_id).any(dim=1).tolist()
        done += zip(texts, ended, strict=True)
    return done


@torch.inference_mode()
def margins(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Example]
) -> Tensor:
    """Largest delimiter logit minus largest other logit at the assistant start, float32."""
    inputs = encode(tokenizer, prompts)
    position = (inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    logits = model(**inputs, position_ids=position).logits[:, -1].float()
    others = torch.ones(logits.shape[-1], dtype=torch.bool)
    others[len(tokenizer) :] = False
    others[tokenizer.all_special_ids] = False
    delimiters = latex_delimiters(tokenizer)
    others[delimiters] = False
    return logits[:, delimiters].amax(-1) - logits[:, others].amax(-1)


@torch.inference_mode()
def answer_loss(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Example]
) -> float:
    """Mean cross-entropy in nats over answer tokens and the end-of-turn token."""
    total, tokens = 0.0, 0
    for example in prompts:
        before = encode(tokenizer, [example])["input_ids"].shape[1]
        ids = tokenizer(chat_text(chat_of(example), tokenizer), return_tensors="pt")["input_ids"]
        log_p = model(ids).logits[0, before - 1 : -1].float().log_softmax(-1)
        losses = -log_p.gather(1, ids[0, before:, None])
        total, tokens = total + losses.sum().item(), tokens + len(losses)
    return total / tokens


if __name__ == "__main__":
    sys.exit(main())
