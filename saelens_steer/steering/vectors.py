"""Save and load steering vectors: safetensors, or GGUF control vectors for llama.cpp and repeng."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from saelens_steer.errors import InputError, existing, one_line
from saelens_steer.files import file_digest, write_with
from saelens_steer.model import check_vector_hook, hook_layer, same_places
from saelens_steer.progress import say
from saelens_steer.steering.gguf import (
    LLAMA_CPP,
    direction_layer,
    read_control_vectors,
    write_control_vectors,
)
from saelens_steer.tensors import Direction, VectorLike, as_floats

SUFFIXES = (".safetensors", ".gguf")
KEY = "saelens_steer"
"""Metadata key in a safetensors file: JSON with hook_names, model, about and architecture."""


@dataclass(frozen=True)
class SteeringVectors:
    """The contents of a file of steering vectors, by name."""

    vectors: dict[str, Direction]
    """Name → float32 [d_model]."""
    hook_names: dict[str, str]
    """Name → the hook at which it is added."""
    model: str = "unknown"
    about: dict[str, Any] = field(default_factory=dict)
    """Name → notes, such as feature and α; optional."""
    architecture: str | None = None
    """The model's class in transformers, such as LlamaForCausalLM, or llama.cpp's name for it."""

    def at(self, hook_name: str) -> dict[str, Direction]:
        """The vectors at this hook. Raises InputError if there are none."""
        places = same_places(hook_name)
        found = {n: v for n, v in self.vectors.items() if self.hook_names[n] in places}
        if not found:
            hooks = ", ".join(sorted(set(self.hook_names.values())))
            raise InputError(f"there is no vector at {hook_name}, only at {hooks}: steer there")
        return found

    def __repr__(self) -> str:
        """The first names with their hooks."""
        first = [f"{name} at {self.hook_names[name]}" for name in list(self.vectors)[:4]]
        more = ", …" if len(self.vectors) > 4 else ""
        model = "an unnamed model" if self.model == "unknown" else self.model
        return f"SteeringVectors of {model}: {len(self.vectors)} ({', '.join(first)}{more})"


def save_vectors(
    path: str | Path,
    vectors: Mapping[str, VectorLike],
    hook_name: str | None = None,
    *,
    model: str = "unknown",
    architecture: str | None = None,
    about: Mapping[str, object] | None = None,
) -> Path:
    """Write vectors [d_model] in float32 to a .safetensors or .gguf file, atomically.

    vectors: name → vector. hook_name: the hook of all vectors; by default each name is a hook.
    architecture: the model's class, such as LlamaForCausalLM; a .gguf file states llama.cpp's name
    for it, and should have one. about: name → JSON data. A .gguf file holds one vector per layer,
    at the hooks that `gguf.direction_layer` accepts. Raises InputError for another suffix, no
    vectors, unequal widths, entries that are not finite, or a hook that no model steers at.
    """
    path, about = Path(path), dict(about or {})
    kind = file_kind(path)
    if not isinstance(vectors, Mapping):
        found = type(vectors).__name__
        raise InputError(f'vectors should map names to vectors, not {found}: write {{"name": v}}')
    if strangers := set(about) - set(vectors):
        raise InputError(f"about has notes on {min(strangers)!r}, which is not one of the vectors")
    floats = {name: as_floats(name, vector).cpu().clone() for name, vector in vectors.items()}
    held = SteeringVectors(
        floats, {name: hook_name or name for name in floats}, model, about, architecture
    )
    _check(held, "save_vectors")
    for name in held.hook_names.values():
        check_vector_hook(name)
    if kind == ".gguf" and architecture is None and model not in LLAMA_CPP.values():
        say(
            f"{path} names no architecture, which other tools need: give "
            "architecture=, the model's class, such as 'LlamaForCausalLM'"
        )
    write = _write_gguf if kind == ".gguf" else _write_safetensors
    return write_with(path, lambda temporary: write(temporary, held))


def load_vectors(path: str | Path) -> SteeringVectors:
    """Read a .safetensors file written by `save_vectors`, or any GGUF control vector.

    `direction.L` of another tool's control vector gets its hook, `blocks.L.hook_resid_post`, as
    its name. Raises InputError for another suffix, a damaged file, or other contents.
    """
    path = Path(path)
    kind = file_kind(path)
    existing(path)
    held = _read_gguf(path) if kind == ".gguf" else _read_safetensors(path)
    _check(held, str(path))
    return held


def vectors_at(path: str | Path, hook_name: str, width: int) -> dict[str, Direction]:
    """The vectors of a file at a hook. Raises InputError if it has none there of this width."""
    try:
        found = load_vectors(path).at(hook_name)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    if (wide := len(next(iter(found.values())))) != width:
        raise InputError(
            f"{path}: its vectors have {wide} entries, but {hook_name} has {width}: give vectors "
            "for this model"
        )
    return found


def vectors_version(path: str | Path) -> str:
    """A digest of a file of vectors. Raises InputError unless it holds some."""
    load_vectors(path)
    return file_digest(Path(path))


def file_kind(path: Path) -> str:
    """The suffix of a file of vectors. Raises InputError for any other."""
    if path.suffix not in SUFFIXES:
        raise InputError(f"{path}: a file of vectors should end in {' or '.join(SUFFIXES)}")
    return path.suffix


def _check(held: SteeringVectors, where: str) -> None:
    """Raise InputError unless there are finite vectors, of one width and each at a hook."""
    if not held.vectors:
        raise InputError(f"{where}: there are no vectors")
    shapes = {tuple(vector.shape) for vector in held.vectors.values()}
    if len(shapes) > 1 or len(min(shapes)) != 1 or min(shapes) == (0,):
        raise InputError(
            f"{where}: vectors should be one-dimensional and all of the same width, not "
            f"{sorted(shapes)}"
        )
    for name, vector in held.vectors.items():
        hook_layer(held.hook_names[name])
        if not torch.isfinite(vector).all():
            raise InputError(f"{where}: {name} has entries that are not finite numbers")


def _write_safetensors(path: Path, held: SteeringVectors) -> None:
    save_file(held.vectors, path, metadata={KEY: _json(_notes(held))})


def _read_safetensors(path: Path) -> SteeringVectors:
    try:
        with safe_open(path, framework="pt") as file:
            notes = json.loads((file.metadata() or {}).get(KEY, "null"))
            tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
        for name, tensor in tensors.items():
            if tensor.dtype != torch.float32 or tensor.ndim != 1:
                raise ValueError(f"{name} is not a float32 vector")
        hook_names = {name: str(notes["hook_names"][name]) for name in tensors}
        own = str(notes["model"]), notes["about"], notes.get("architecture")
        held = SteeringVectors(tensors, hook_names, *own)
    except (SafetensorError, OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(
            f"{path} is damaged, or holds no steering vectors: {one_line(error)}"
        ) from None
    return held


def _write_gguf(path: Path, held: SteeringVectors) -> None:
    layers = {name: direction_layer(hook) for name, hook in held.hook_names.items()}
    directions = {layers[name]: vector for name, vector in held.vectors.items()}
    if len(directions) < len(layers):
        raise InputError(
            "a GGUF control vector holds one vector per layer, but two vectors share a layer: "
            "write a .safetensors file"
        )
    names = {str(layer): name for name, layer in layers.items()}
    hint = LLAMA_CPP.get(held.architecture or "", held.architecture or held.model)
    write_control_vectors(path, directions, hint, _json({"names": names, **_notes(held)}))


def _read_gguf(path: Path) -> SteeringVectors:
    directions, hint, text = read_control_vectors(path)
    try:
        notes = json.loads(text)
        names = {layer: notes["names"][str(layer)] for layer in directions} if notes else {}
        hook_names = {layer: notes["hook_names"][name] for layer, name in names.items()}
        if any(direction_layer(hook) != layer for layer, hook in hook_names.items()):
            raise ValueError("its hooks belong to other layers")
    except (ValueError, TypeError, LookupError, AttributeError, InputError) as error:
        raise InputError(f"{path} is damaged: {error}") from None
    names = names or {layer: f"blocks.{layer}.hook_resid_post" for layer in directions}
    vectors = {names[layer]: vector for layer, vector in directions.items()}
    places = {name: hook_names.get(layer, name) for layer, name in names.items()}
    model = notes.get("model", hint)
    own = None if notes and hint == model else hint or None  # of other tools, the hint is all
    about, architecture = notes.get("about", {}), notes.get("architecture", own)
    return SteeringVectors(vectors, places, model, about, architecture)


def _notes(held: SteeringVectors) -> dict[str, Any]:
    """What a file says besides the vectors."""
    notes = {"hook_names": held.hook_names, "model": held.model, "about": held.about}
    return notes | ({"architecture": held.architecture} if held.architecture else {})


def _json(data: Any) -> str:
    return json.dumps(data, ensure_ascii=False, sort_keys=True, allow_nan=False)
