"""The header of a GGUF file, read once by the package gguf."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import hf_hub_download

from saelens_steer.errors import InputError, existing, one_line
from saelens_steer.model.snapshot import download_failure

NOT_A_MODEL = {
    "adapter": "a LoRA adapter without its base: merge it (llama-export-lora) and give the result",
    "mmproj": "the vision part of a model: give the file of its language model",
    "clip": "the vision part of a model: give the file of its language model",
    "imatrix": "an importance matrix: give the file of the model",
    "vocab": "a vocabulary without weights: give the file of the model",
    "controlvector": "a control vector: give the file of the model (load_vectors reads this one)",
}
GGUF_DAMAGE = (ValueError, LookupError, TypeError, OverflowError, OSError, MemoryError)
"""Exceptions that the package gguf raises for a damaged file."""


@dataclass(frozen=True)
class GgufFile:
    """The keys of a GGUF file and the shapes of its tensors, in torch's order."""

    path: Path
    values: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]
    vectors: dict[str, np.ndarray]
    """The float32 vectors outside the layers, by name."""

    @property
    def architecture(self) -> str:
        """llama.cpp's name of the architecture."""
        return self.values["general.architecture"]


def find_gguf(name: str, revision: str | None = None) -> Path | None:
    """The file that a name ending in .gguf refers to: a path, or owner/repository/file on the hub.

    None for any other name.
    """
    path = Path(name).expanduser()
    if path.suffix != ".gguf" or path.is_dir():
        return None
    on_hub = re.fullmatch(r"(\w[\w.-]*/\w[\w.-]*)/(.+)", name)
    if path.is_file() or on_hub is None:
        return path
    try:
        return Path(hf_hub_download(on_hub[1], on_hub[2], revision=revision))
    except Exception as e:  # hub, network and disk errors share no base class
        raise InputError(download_failure(name, revision, e)) from e


def gguf_package() -> Any:
    """The package gguf; InputError if it is not installed."""
    try:
        import gguf
    except ImportError:
        raise InputError("GGUF files need the gguf package: install saelens-steer[gguf]") from None
    return gguf


def read_gguf(path: Path) -> GgufFile:
    """The header of a model's file; InputError for a damaged file or one without a model."""
    stat = existing(path).stat()
    return _read_header(path, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=4)
def _read_header(path: Path, size: int, mtime_ns: int) -> GgufFile:  # noqa: ARG001
    """The header; size and time are part of the cache key, to notice changes."""
    gguf_package()
    try:
        reader = _reader(path)
        values = {name: _value(name, field) for name, field in reader.fields.items()}
        shapes = {t.name: tuple(int(n) for n in reversed(t.shape)) for t in reader.tensors}
        vectors = {t.name: np.array(t.data) for t in reader.tensors if _is_vector(t)}
    except GGUF_DAMAGE as error:
        raise InputError(
            f"{path} is damaged, or not a GGUF file ({one_line(error)}): download it again"
        ) from None
    _refuse_parts(path, values)
    return GgufFile(path, values, shapes, vectors)


def _reader(path: Path) -> Any:
    """gguf's reader on a plain array, which it slices several times as fast as a memory map."""

    class PlainReader(gguf_package().GGUFReader):
        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, np.asarray(value) if name == "data" else value)

    return PlainReader(path)


def _value(name: str, field: Any) -> Any:
    """A key's value. Floats are rounded to float32's shortest form; vocabulary lists are replaced
    by their length."""
    if name.startswith("tokenizer.") and field.types[0].name == "ARRAY":
        return len(field.data)
    value = field.contents()
    if field.types[-1].name != "FLOAT32":
        return value
    if isinstance(value, list):
        return [_short(x) for x in value]
    return _short(value)


def _short(value: float) -> float:
    """The shortest decimal that equals this number in float32: 1e-05, not 9.999999747378752e-06."""
    return float(str(np.float32(value)))


def _is_vector(tensor: Any) -> bool:
    return tensor.tensor_type.name == "F32" and "." not in tensor.name.removesuffix(".weight")


def _refuse_parts(path: Path, values: dict[str, Any]) -> None:
    """InputError for a GGUF file that does not hold a whole language model."""
    if not isinstance(architecture := values.get("general.architecture"), str):
        raise InputError(f"{path} does not name its architecture: convert the checkpoint again")
    for kind in (architecture, values.get("general.type")):
        if kind in NOT_A_MODEL:
            raise InputError(f"{path} holds {NOT_A_MODEL[kind]}")
    if values.get("split.count", 1) > 1:
        raise InputError(
            f"{path} is one of {values['split.count']} parts: join them with "
            "`llama-gguf-split --merge` and give the result"
        )
