"""Proof that a loaded model computes what its Hugging Face checkpoint computes.

Both models run on one fixed left-padded batch of token ids and, if layers have a sliding window,
on one row longer than that, of which the end is compared. The figure for a tensor is the largest
relative error ‖ours − theirs‖ / ‖theirs‖ over the real positions, at most 1e-4 in float32. In half
precision rounding alone reaches a few per cent at single positions, so the *median* position may
be off by 10 % (a wrong model is off by about 100 %), and the first layers, at least two and one of
each kind, are also proved in float32. Proofs are remembered per snapshot, dtype, model class,
device and library versions.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from saelens_steer.errors import InputError
from saelens_steer.files import write_json
from saelens_steer.model.architectures import SLIDING, layer_types
from saelens_steer.model.forward import last_token_logits, run_to_hook
from saelens_steer.model.hooks import default_hook_name
from saelens_steer.model.model_class import Model
from saelens_steer.tensors import Mask, Tokens

FLOAT32_TOLERANCE = 1e-4
HALF_TOLERANCE = 0.1
SHALLOW_LAYERS = 2
LENGTHS = (48, 29, 11)
BEYOND = 16
"""Positions compared at the end of the long row, which all lie past a sliding window."""
ProbeReader = Callable[[Tokens, Mask, bool], tuple[Tensor, Tensor]]
"""Tokens, mask, whether only the last logits are needed ↦ logits, middle residuals."""
LIBRARIES = ("torch", "transformers", "transformer-lens")


class ParityError(InputError):
    """The loaded model does not compute what its checkpoint computes."""


@dataclass(frozen=True)
class Reading:
    """What one model says on the probe, at real positions only."""

    logits: Float[Tensor, "n d_vocab"]
    resid: Float[Tensor, "m d_model"]


@dataclass(frozen=True)
class Parity:
    """Relative errors over the probe's positions; the module docstring defines them."""

    logits_max: float
    logits_median: float
    resid_max: float
    resid_median: float

    def worst(self, dtype: torch.dtype) -> float:
        """The figure that the tolerance of `dtype` limits."""
        if dtype == torch.float32:
            return max(self.logits_max, self.resid_max)
        return max(self.logits_median, self.resid_median)


def probe_lengths(config: Any, n_ctx: int) -> list[int]:
    """Tokens in each row of the batch, then those of the row longer than a sliding window."""
    near = [min(n, n_ctx) for n in LENGTHS]
    far = min(config.sliding_window + BEYOND, n_ctx) if SLIDING in layer_types(config) else 0
    return [*near, far] if far > max(near) else near


def _rows(d_vocab: int, lengths: list[int]) -> tuple[Tokens, Mask]:
    """Fixed random token ids in left-padded rows of these lengths."""
    width = max(lengths)
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(0, d_vocab, (len(lengths), width), generator=draw)
    mask = torch.arange(width) >= width - torch.tensor(lengths)[:, None]
    return ids.masked_fill(~mask, 0), mask


def _read(config: PretrainedConfig, n_ctx: int, read: ProbeReader) -> Reading:
    """The batch at its real positions, then the end of the long row."""
    lengths = probe_lengths(config, n_ctx)
    tokens, mask = _rows(config.vocab_size, lengths[: len(LENGTHS)])
    readings = [Reading(*(values.cpu()[mask] for values in read(tokens, mask, False)))]
    for length in lengths[len(LENGTHS) :]:
        logits, resid = read(*_rows(config.vocab_size, [length]), True)
        readings.append(Reading(logits.cpu(), resid[0, -BEYOND:].cpu()))
    return Reading(torch.cat([r.logits for r in readings]), torch.cat([r.resid for r in readings]))


@torch.no_grad()
def read_hugging_face(hf: PreTrainedModel, n_ctx: int) -> Reading:
    """The checkpoint's own answer; positions counted from each row's first real token."""
    return _read(hf.config, n_ctx, partial(_hugging_face, hf))


def _hugging_face(
    hf: PreTrainedModel, tokens: Tokens, mask: Mask, last_only: bool
) -> tuple[Tensor, Tensor]:
    positions = (mask.long().cumsum(1) - 1).clamp(min=0)
    options: dict[str, Any] = {"logits_to_keep": 1} if last_only else {}
    out = hf(
        tokens.to(hf.device),
        attention_mask=mask.long().to(hf.device),
        position_ids=positions.to(hf.device),
        output_hidden_states=True,
        **options,
    )
    logits = out.logits[:, -1] if last_only else out.logits
    return logits, out.hidden_states[hf.config.num_hidden_layers // 2]


@torch.no_grad()
def read_loaded(model: Model, config: PretrainedConfig) -> Reading:
    """The loaded model's answer, through the same calls as the rest of the toolkit."""
    return _read(config, model.cfg.n_ctx, partial(_loaded, model))


def _loaded(model: Model, tokens: Tokens, mask: Mask, last_only: bool) -> tuple[Tensor, Tensor]:
    tokens, mask = tokens.to(model.cfg.device), mask.to(model.cfg.device)
    resid = run_to_hook(model, tokens, mask, default_hook_name(model))
    if last_only:
        return last_token_logits(model, tokens, mask), resid
    return model(tokens, attention_mask=mask.long()), resid


@torch.no_grad()
def compare_on(model: Model, hf: PreTrainedModel, tokens: Tokens, mask: Mask) -> Parity:
    """The figures on given prompts: logits at their ends, residuals at every position."""
    ours, theirs = (
        Reading(logits.cpu(), resid.cpu()[mask.cpu()])
        for logits, resid in (
            _loaded(model, tokens, mask, True),
            _hugging_face(hf, tokens, mask, True),
        )
    )
    return compare(ours, theirs)


def shallow_layers(kinds: list[str]) -> int:
    """How many of the first layers include every kind of attention; at least two, if there are."""
    return max(*(kinds.index(kind) + 1 for kind in set(kinds)), min(SHALLOW_LAYERS, len(kinds)))


def compare(ours: Reading, theirs: Reading) -> Parity:
    """Relative error of each position's vector, summarised; NaN anywhere counts as infinite."""
    logits = _relative(ours.logits, theirs.logits)
    resid = _relative(ours.resid, theirs.resid)
    figures = [logits.max(), logits.median(), resid.max(), resid.median()]
    return Parity(*(float(torch.nan_to_num(f, nan=torch.inf)) for f in figures))


def _relative(ours: Float[Tensor, "n d"], theirs: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """‖ours − theirs‖ / ‖theirs‖ for each row, in float64."""
    difference = (ours.double() - theirs.double()).norm(dim=-1)
    return difference / theirs.double().norm(dim=-1)


def tolerance(dtype: torch.dtype) -> float:
    """The largest relative error that rounding in this dtype may explain."""
    return FLOAT32_TOLERANCE if dtype == torch.float32 else HALF_TOLERANCE


def check(parity: Parity, dtype: torch.dtype, name: str) -> Parity:
    """The parity itself, or ParityError when it is outside the tolerance of `dtype`."""
    allowed, worst = tolerance(dtype), parity.worst(dtype)
    if not worst <= allowed:
        raise ParityError(
            f"The model {name} as loaded differs from its Hugging Face checkpoint by {worst:.1e} "
            f"(at most {allowed:.0e} in {dtype}), so nothing measured on it would hold: use "
            "another checkpoint, or other versions of transformer-lens and transformers."
        )
    return parity


def parity_key(
    fingerprint: str, dtype: torch.dtype, model_class: str, device: str, lengths: list[int]
) -> str:
    """Hash of everything the outcome of a proof depends on."""
    versions = [f"{library}=={version(library)}" for library in LIBRARIES]
    kind = torch.device(device).type
    parts = [fingerprint, str(dtype), model_class, kind, str(lengths), *versions]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def cache_folder() -> Path:
    """Where proofs are remembered: $XDG_CACHE_HOME or ~/.cache, then saelens_steer/parity."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "saelens_steer" / "parity"


def recall(key: str) -> Parity | None:
    """The remembered proof; None if there is no readable one."""
    try:
        record: dict[str, Any] = json.loads((cache_folder() / f"{key}.json").read_text())
        return Parity(**record["parity"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remember(key: str, parity: Parity, about: dict[str, str]) -> None:
    """Record a proof; if it cannot be written, the next load proves again."""
    with suppress(OSError, InputError):
        write_json(cache_folder() / f"{key}.json", {"parity": asdict(parity), **about})
