"""Where a model came from: kept beside the model, so that the model itself stays as it was."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch

from saelens_steer.model.model_class import Model
from saelens_steer.model.parity import Parity


@dataclass(frozen=True)
class Source:
    """The checkpoint behind a loaded model, and the proof that loading was right."""

    name: str
    folder: str
    commit: str | None
    fingerprint: str
    stop_ids: tuple[int, ...]
    parity: Parity


_SOURCES: WeakKeyDictionary[Any, Source] = WeakKeyDictionary()


def set_source(model: Model, source: Source) -> None:
    """Remember where a model came from for as long as it lives."""
    _SOURCES[model] = source


def source_of(model: Model) -> Source | None:
    """What `load_model` noted about a model; None for a model made elsewhere."""
    return _SOURCES.get(model)


def model_fingerprint(model: Model) -> str:
    """sha256 over the checkpoint's weights and config; dtype and model class are not in it.

    For a model that `load_model` did not load: over its parameters as they are now.
    """
    source = source_of(model)
    return source.fingerprint if source else _hash_parameters(model)


def model_provenance(model: Model) -> dict[str, Any]:
    """What to write down about a model so that a result can be traced to it."""
    source = source_of(model)
    about = asdict(source) if source else {"fingerprint": model_fingerprint(model)}
    own = {"class": type(model).__name__, "dtype": str(model.cfg.dtype).removeprefix("torch.")}
    return {"name": model.cfg.model_name, **about, **own, "n_ctx": model.cfg.n_ctx}


def _hash_parameters(model: Model) -> str:
    """sha256 over names, shapes and bytes of all parameters, one at a time."""
    digest = hashlib.sha256()
    for name, weight in sorted(model.named_parameters()):
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}\n".encode())
        digest.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
