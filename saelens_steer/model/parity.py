"""Prove that a loaded model computes what its Hugging Face checkpoint computes.

Both models run on one fixed left-padded batch of token ids. If layers have a sliding window, they
also run on one longer row, whose end is compared. The error at a position is
‖ours − theirs‖ / ‖theirs‖. In float32 the *largest* error over real positions may be 1e-4. In half
precision rounding alone reaches a few per cent at single positions, so the *median* may be 10 % (a
wrong model is off by about 100 %), and the model is proved in float32 too: the whole of it up to
1 billion parameters; above that the first layers (at least two, with one of each kind), the last
layer, the final norm and the unembedding. Proofs are remembered per snapshot, dtype, model class,
device, versions of the libraries and of this package, and its code for models.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
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
from saelens_steer.files import file_digest, write_json
from saelens_steer.model.forward import last_token_logits, run_to_hook
from saelens_steer.model.hooks import default_hook_name
from saelens_steer.model.model_class import Model
from saelens_steer.model.settings import window
from saelens_steer.tensors import Mask, Tokens
from saelens_steer.version import __version__

FLOAT32_TOLERANCE = 1e-4
HALF_TOLERANCE = 0.1
LENGTHS = (48, 29, 11)
BEYOND = 16
"""Positions compared at the end of the long row, all past the sliding window."""
ProbeReader = Callable[[Tokens, Mask, bool], tuple[Tensor, Tensor]]
"""(tokens, mask, last_only) ↦ logits (of the last position if `last_only`), middle residuals."""
LIBRARIES = ("torch", "transformers", "transformer-lens")


class ParityError(InputError):
    """The loaded model disagrees with its checkpoint."""


@dataclass(frozen=True)
class Reading:
    """One model's outputs on the probe, at real positions."""

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
        """The error that `tolerance(dtype)` bounds."""
        if dtype == torch.float32:
            return max(self.logits_max, self.resid_max)
        return max(self.logits_median, self.resid_median)


def probe_lengths(config: Any, n_ctx: int) -> list[int]:
    """The length of each row of the batch, then of the row longer than a sliding window, if any."""
    near = [min(n, n_ctx) for n in LENGTHS]
    far = min(window(config) + BEYOND, n_ctx) if window(config) else 0
    return [*near, far] if far > max(near) else near


def _rows(d_vocab: int, lengths: list[int]) -> tuple[Tokens, Mask]:
    """Left-padded rows of fixed random token ids."""
    width = max(lengths)
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(0, d_vocab, (len(lengths), width), generator=draw)
    mask = torch.arange(width) >= width - torch.tensor(lengths)[:, None]
    return ids.masked_fill(~mask, 0), mask


def _read(config: PretrainedConfig, n_ctx: int, read: ProbeReader) -> Reading:
    """Outputs at the batch's real positions, then at the end of the long row."""
    lengths = probe_lengths(config, n_ctx)
    tokens, mask = _rows(config.vocab_size, lengths[: len(LENGTHS)])
    readings = [Reading(*(values.cpu()[mask] for values in read(tokens, mask, False)))]
    for length in lengths[len(LENGTHS) :]:
        logits, resid = read(*_rows(config.vocab_size, [length]), True)
        readings.append(Reading(logits.cpu(), resid[0, -BEYOND:].cpu()))
    return Reading(torch.cat([r.logits for r in readings]), torch.cat([r.resid for r in readings]))


@torch.no_grad()
def read_hugging_face(hf: PreTrainedModel, n_ctx: int) -> Reading:
    """The checkpoint's outputs."""
    return _read(hf.config, n_ctx, partial(_hugging_face, hf))


def _hugging_face(
    hf: PreTrainedModel, tokens: Tokens, mask: Mask, last_only: bool
) -> tuple[Tensor, Tensor]:
    positions = (mask.long().cumsum(1) - 1).clamp(min=0)  # from each row's first real token
    options: dict[str, Any] = {"logits_to_keep": 1, "position_ids": positions.to(hf.device)}
    taken = inspect.signature(hf.forward).parameters
    if not last_only:
        del options["logits_to_keep"]
    out = hf(
        tokens.to(hf.device),
        attention_mask=mask.long().to(hf.device),
        output_hidden_states=True,
        **{name: value for name, value in options.items() if name in taken},
    )
    logits = out.logits[:, -1] if last_only else out.logits
    return logits, out.hidden_states[hf.config.num_hidden_layers // 2]


@torch.no_grad()
def read_loaded(model: Model, config: PretrainedConfig) -> Reading:
    """The loaded model's outputs, at last positions by the functions that the package uses
    elsewhere."""
    return _read(config, model.cfg.n_ctx, partial(_loaded, model))


def _loaded(model: Model, tokens: Tokens, mask: Mask, last_only: bool) -> tuple[Tensor, Tensor]:
    tokens, mask = tokens.to(model.cfg.device), mask.to(model.cfg.device)
    resid = run_to_hook(model, tokens, mask, default_hook_name(model))
    last = last_token_logits(model, tokens, mask)
    if last_only:
        return last, resid
    logits = model(tokens, attention_mask=mask.long())
    logits[:, -1] = last
    return logits, resid


@torch.no_grad()
def compare_on(model: Model, hf: PreTrainedModel, tokens: Tokens, mask: Mask) -> Parity:
    """Errors on these prompts: logits at the last position, residuals at every position."""
    ours, theirs = (
        Reading(logits.cpu(), resid.cpu()[mask.cpu()])
        for logits, resid in (
            _loaded(model, tokens, mask, True),
            _hugging_face(hf, tokens, mask, True),
        )
    )
    return compare(ours, theirs)


def compare(ours: Reading, theirs: Reading) -> Parity:
    """Relative errors over positions, summarised; NaN counts as infinite."""
    logits = _relative(ours.logits, theirs.logits)
    resid = _relative(ours.resid, theirs.resid)
    figures = [logits.max(), logits.median(), resid.max(), resid.median()]
    return Parity(*(float(torch.nan_to_num(f, nan=torch.inf)) for f in figures))


def _relative(ours: Float[Tensor, "n d"], theirs: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """‖ours − theirs‖ / ‖theirs‖ for each row, in float64."""
    difference = (ours.double() - theirs.double()).norm(dim=-1)
    return difference / theirs.double().norm(dim=-1)


def tolerance(dtype: torch.dtype) -> float:
    """The largest relative error attributed to rounding in this dtype."""
    return FLOAT32_TOLERANCE if dtype == torch.float32 else HALF_TOLERANCE


def check(parity: Parity, dtype: torch.dtype, name: str) -> Parity:
    """Return the parity; ParityError if it exceeds the tolerance for `dtype`."""
    allowed, worst = tolerance(dtype), parity.worst(dtype)
    if not worst <= allowed:
        raise ParityError(
            f"The loaded model {name} differs from its Hugging Face checkpoint by {worst:.1e} "
            f"(allowed in {dtype}: {allowed:.0e}), so measurements on it would be meaningless: use "
            "another checkpoint, or other versions of transformer-lens and transformers."
        )
    return parity


def parity_key(
    fingerprint: str, dtype: torch.dtype, model_class: str, device: str, lengths: list[int]
) -> str:
    """Hash of everything that a proof depends on."""
    versions = [f"{library}=={version(library)}" for library in LIBRARIES]
    versions.append(f"saelens_steer=={__version__}")
    kind = torch.device(device).type
    parts = [fingerprint, str(dtype), model_class, kind, str(lengths), *versions, _code()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


@functools.cache
def _code() -> str:
    """Digest of this package's code for models."""
    return file_digest(*sorted(Path(__file__).parent.rglob("*.py")))


def cache_folder() -> Path:
    """Where proofs are stored: saelens_steer/parity in $XDG_CACHE_HOME or ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "saelens_steer" / "parity"


def recall(key: str) -> tuple[Parity, str] | None:
    """The stored proof, and what was proved; None if there is none or it cannot be read."""
    try:
        record: dict[str, Any] = json.loads((cache_folder() / f"{key}.json").read_text())
        return Parity(**record["parity"]), str(record["proof"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remember(key: str, parity: Parity, about: dict[str, str]) -> None:
    """Store a proof; if that fails, the next load proves the model again."""
    with suppress(OSError, InputError):
        write_json(cache_folder() / f"{key}.json", {"parity": asdict(parity), **about})
