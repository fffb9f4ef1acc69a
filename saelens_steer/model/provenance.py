"""Where a model came from, recorded outside the model so that the model is never modified."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from transformers import PreTrainedModel

from saelens_steer.model.model_class import Model
from saelens_steer.model.parity import Parity

REMEMBERED = ", remembered"


@dataclass(frozen=True)
class ModelOrigin:
    """The checkpoint of a loaded model, and the proof that it was loaded correctly."""

    name: str
    folder: str
    commit: str | None
    fingerprint: str
    stop_ids: tuple[int, ...]
    parity: Parity
    proof: str
    """What was proved, and in which dtype, with REMEMBERED if an earlier load proved it."""


Reader = Callable[[torch.dtype], PreTrainedModel]
_ORIGINS: WeakKeyDictionary[Any, tuple[ModelOrigin, Reader]] = WeakKeyDictionary()


def set_origin(model: Model, origin: ModelOrigin, read: Reader) -> None:
    """Record where a model came from, for as long as the model exists."""
    _ORIGINS[model] = origin, read


def origin_of(model: Model) -> ModelOrigin | None:
    """What `load_model` recorded; None for a model created elsewhere."""
    return _ORIGINS[model][0] if model in _ORIGINS else None


def reader_of(model: Model) -> Reader | None:
    """The function that rereads a model's checkpoint; None for a model created elsewhere."""
    return _ORIGINS[model][1] if model in _ORIGINS else None


def model_fingerprint(model: Model) -> str:
    """sha256 of the checkpoint, whatever the dtype and model class.

    For a model that `load_model` did not load: sha256 of its current parameters.
    """
    origin = origin_of(model)
    return origin.fingerprint if origin else weights_digest(model)


def weights_digest(model: Model) -> str:
    """sha256 of the model's current parameters."""
    digest = hashlib.sha256()
    for name, weight in sorted(model.named_parameters()):
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}\n".encode())
        digest.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def model_provenance(model: Model) -> dict[str, Any]:
    """The facts that identify a model in a run's records."""
    origin = origin_of(model)
    about = asdict(origin) if origin else {"fingerprint": model_fingerprint(model)}
    settings = {
        "class": type(model).__name__,
        "architecture": getattr(model.cfg, "original_architecture", None),
        "dtype": str(model.cfg.dtype).removeprefix("torch."),
    }
    return {"name": model.cfg.model_name, **about, **settings, "n_ctx": model.cfg.n_ctx}
