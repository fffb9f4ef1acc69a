"""How much memory a run takes, beside how much there is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from saelens_steer.data import Encoded, encode_prompts
from saelens_steer.doctor.findings import Finding
from saelens_steer.doctor.sizes import Sizes
from saelens_steer.stages import Run, template
from saelens_steer.study import Study
from saelens_steer.sweeps import WRITTEN

FLOAT32 = 4
TRAINING = 4
"""Training an SAE holds its weights, their gradients, and two moments of each."""


def described(run: Run, study: Study, sizes: Sizes) -> Iterator[Finding]:
    """Beside the model on its device, as if all were held at one time; then on disk."""
    parts = {
        "SAE": _sae_bytes(run),
        "a batch of the sweep": _row_bytes(study, sizes),
        "a batch of texts": _text_bytes(study, sizes),
    }
    said = ", ".join(f"{name} {_gib(size)}" for name, size in parts.items() if size)
    free = free_bytes(run.model)
    yield Finding("memory", f"the model {_gib(weight_bytes(run.model))} GiB; beside it {said}")
    yield Finding("", _verdict(sum(parts.values()), free, run.model.cfg.device))
    kept = {"activations": _activation_bytes(run)}
    if study.spec.cache_logits:
        kept["logits"] = FLOAT32 * sizes.rows * run.model.cfg.d_vocab
    yield Finding("disk", ", ".join(f"{name} {_gib(size)}" for name, size in kept.items()) + " GiB")


def _verdict(needed: int, free: int | None, device: Any) -> str:
    if free is None:
        return f"how much is free on {device} is not known"
    if needed <= free:
        return f"{_gib(free)} GiB are free on {device}: enough"
    return f"{_gib(free)} GiB are free on {device}: too little, lower sweep.batch_tokens"


def free_bytes(model: Any) -> int | None:
    """Free memory of the model's device; None where the system does not say."""
    device = torch.device(model.cfg.device)
    if device.type == "cuda":  # with what torch holds and does not use
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    table = Path("/proc/meminfo")
    if device.type != "cpu" or not table.is_file():
        return None
    lines = (line.split() for line in table.read_text().splitlines())
    return next((int(words[1]) * 1024 for words in lines if words[0] == "MemAvailable:"), None)


def weight_bytes(model: Any) -> int:
    """Parameters and buffers; what is shared counts once."""
    tensors = [*model.parameters(), *model.buffers()]
    return sum({t.data_ptr(): t.numel() * t.element_size() for t in tensors}.values())


def _sae_bytes(run: Run) -> int:
    """A loaded SAE, or what training one holds at once."""
    train, d_model = run.spec.sae.train, run.model.cfg.d_model
    if train is None:
        return weight_bytes(run.load_sae())
    cached = (train.cached_tokens or 0) * d_model * run.model.cfg.dtype.itemsize
    return TRAINING * FLOAT32 * 2 * d_model * train.d_sae + cached


def _row_bytes(study: Study, sizes: Sizes) -> int:
    """About what a layer holds for the tokens of a batch, and the logits of its rows."""
    cfg, tokens = study.model.cfg, study.ground.batch_tokens
    heads = 2 * cfg.n_heads + 2 * _kv_heads(cfg)
    width = 4 * cfg.d_model + 3 * (cfg.d_mlp or 0) + heads * cfg.d_head
    rows = min(tokens / (sizes.mean_length + cfg.d_vocab // (2 * cfg.d_model)) + 1, sizes.rows)
    return int(tokens * width * cfg.dtype.itemsize + 2 * rows * cfg.d_vocab * FLOAT32)


def _text_bytes(study: Study, sizes: Sizes) -> int:
    """Keys and values of the texts that are written at one time."""
    cfg = study.model.cfg
    length = sizes.mean_length + study.spec.generate.max_new_tokens
    tokens = min(sizes.texts * length, WRITTEN * study.ground.batch_tokens)
    return int(tokens * cfg.n_layers * 2 * _kv_heads(cfg) * cfg.d_head * cfg.dtype.itemsize)


def _kv_heads(cfg: Any) -> int:
    return getattr(cfg, "n_key_value_heads", None) or cfg.n_heads


def _activation_bytes(run: Run) -> int:
    """At most: special tokens, sinks and ordinary tokens that are not asked for are left out."""
    spec = run.spec
    encoded = encode_prompts(run.model.tokenizer, run.selecting, **template(spec))
    tokens = _kept_tokens(encoded, spec.activations.tokens, _answer_tokens(run))
    return FLOAT32 * run.model.cfg.d_model * tokens


def _answer_tokens(run: Run) -> int:
    """Tokens of an answer that the model is to write where a prompt has none."""
    return run.spec.select.answer_tokens if run.spec.reads_answers else 0


def _kept_tokens(encoded: Sequence[Encoded], which: str, answer_tokens: int) -> int:
    answers = sum(len(each.answer) or answer_tokens for each in encoded)
    heads = sum(len(each.head) for each in encoded)
    return {"last": len(encoded), "answer": answers}.get(which, heads + answers)


def _gib(size: int) -> str:
    gib = size / 2**30
    return f"{gib:.1f}" if gib >= 0.95 else f"{gib:.2g}"
