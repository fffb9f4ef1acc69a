"""Have SmolLM2 answer prompts like those of the study, but none of them, for its SAEs to train on:
`python -m scripts.smollm2.answers FOLDER FILE.jsonl` reads the model from a Hugging Face folder."""

from __future__ import annotations

import json
import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import scipy.linalg
import scipy.special
import scipy.stats
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from scripts.smollm2.corpus import library_files
from scripts.smollm2.prompts import BOTH, EXAMPLE, NO_SYSTEM, SETS, SUBJECTS, user

EACH = 400
"""Prompts of each kind."""
NEW_TOKENS = 112
BATCH = 64
TEMPERATURE = 0.7


def quantities() -> list[str]:
    """What functions of SciPy compute, as its module pages list them."""
    pages = "".join(m.__doc__ or "" for m in (scipy.special, scipy.stats, scipy.linalg))
    lines = re.findall(r"^ +\w+ +-- (.{10,60}?)\.?$", pages, re.MULTILINE)
    return [line[0].lower() + line[1:] for line in lines]


def tasks() -> list[str]:
    """What functions of the standard library do, from the first lines of their docstrings."""
    first = re.compile(r'def [a-z]\w+\(.*\).*:\n +"""(Return|Get|Make|Read|Write) ([^".]{15,60})\.')
    found = {
        f"{verb.lower()} {rest}"
        for file in library_files("*.py")
        for verb, rest in first.findall(file.read_text("utf-8", errors="ignore"))
    }
    return sorted(found)


def things() -> list[str]:
    """Long words of the prompts' own domains, as subjects of prose and questions."""
    texts = " ".join(text for block in SUBJECTS.values() for text in block)
    words = set(re.findall(r"[a-z]{5,}", texts))
    return [f"{a} and {b}" for a in sorted(words) for b in sorted(words) if a != b]


def conversations() -> Iterator[list[dict[str, str]]]:
    draw = random.Random(0)
    subject, answer = EXAMPLE
    before = [NO_SYSTEM, user(BOTH, subject), {"role": "assistant", "content": answer}]
    wordings = {**SETS["selection"], "facts": SETS["others"]["facts"]}
    subjects = {"code": tasks(), "math": quantities(), "prose": things(), "facts": things()}
    for domain, wording in wordings.items():
        own = subjects[domain]
        for chosen in draw.sample(own, min(EACH, len(own))):
            yield [user(wording, chosen)]
    for chosen in draw.sample(quantities(), min(EACH, len(quantities()))):
        yield [*before, user(BOTH, chosen)]


def main(folder: str, out: Path) -> None:
    """Append the answers that the file lacks, a batch at a time, so that it can be interrupted."""
    tokenizer: Any = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    texts = sorted(
        (
            tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
            for turns in conversations()
        ),
        key=len,
    )
    done = len(out.read_text("utf-8").splitlines()) if out.is_file() else 0
    for first in range(done, len(texts), BATCH):
        torch.manual_seed(first)
        batch = texts[first : first + BATCH]
        inputs = tokenizer(batch, padding=True, return_tensors="pt")
        with torch.inference_mode():
            new = model.generate(
                **inputs, max_new_tokens=NEW_TOKENS, do_sample=True, temperature=TEMPERATURE
            )[:, inputs["input_ids"].shape[1] :]
        rows = [
            {"text": text + answer.partition("<|im_end|>")[0] + "<|im_end|>\n", "domain": "chat"}
            for text, answer in zip(batch, tokenizer.batch_decode(new), strict=True)
        ]
        with out.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
