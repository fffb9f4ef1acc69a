"""Load a model from one GGUF file through transformers, with every tensor and key accounted for.

transformers' reader drops what it does not know in silence, so the header is read here first:
`gguf_config` builds the config from its keys, and refuses a file unless each key is in the config
and each tensor is a weight of the model.
"""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from saelens_steer.errors import InputError, one_line

SUFFIX = ".gguf"
STOP_KEYS = ("eos_token_id", "eot_token_id", "eom_token_id")
"""Ends of text, of a turn and of a message: llama.cpp stops at each."""
NOT_A_MODEL = {
    "adapter": "a LoRA adapter without its base: merge it (llama-export-lora) and give the result",
    "mmproj": "the vision part of a model: give the file of its language model",
    "imatrix": "an importance matrix: give the file of the model",
    "vocab": "a vocabulary without weights: give the file of the model",
    "controlvector": "a control vector: give the file of the model, and read this with load_vectors",
}
DAMAGE = (ValueError, LookupError, TypeError, OverflowError, OSError, MemoryError)
"""What the package gguf raises for a damaged file."""


@dataclass(frozen=True)
class GgufFile:
    """The header of a GGUF file: its keys and the shapes of its tensors, in torch's order."""

    path: Path
    values: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]
    small: dict[str, np.ndarray]
    """The float32 vectors outside the layers, by name."""

    @property
    def architecture(self) -> str:
        """llama.cpp's name of the architecture."""
        return self.values["general.architecture"]


def gguf_package() -> Any:
    """The package gguf; InputError if it is not installed."""
    try:
        import gguf
    except ImportError:
        raise InputError("GGUF files need the package gguf: install saelens-steer[gguf]") from None
    return gguf


def is_gguf(source: Path) -> bool:
    """Whether a model's source is one GGUF file, by its name."""
    return source.suffix == SUFFIX and not source.is_dir()


def read_gguf(path: Path) -> GgufFile:
    """The header of a model's file; InputError for a damaged file or one without a model."""
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    stat = path.stat()
    return _read_header(path, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=4)
def _read_header(path: Path, size: int, mtime_ns: int) -> GgufFile:  # noqa: ARG001
    """The header; size and time are part of the cache key, to notice changes."""
    try:
        reader = _reader(path)
        values = {name: _value(name, field) for name, field in reader.fields.items()}
        shapes = {t.name: tuple(int(n) for n in reversed(t.shape)) for t in reader.tensors}
        small = {t.name: np.array(t.data) for t in reader.tensors if _is_small(t)}
    except DAMAGE as error:
        raise InputError(
            f"{path} is damaged, or not a GGUF file ({one_line(error)}): download it again"
        ) from None
    _refuse_parts(path, values)
    return GgufFile(path, values, shapes, small)


def _reader(path: Path) -> Any:
    """gguf's reader on a plain array, which it slices several times as fast as a memory map."""

    class PlainReader(gguf_package().GGUFReader):
        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, np.asarray(value) if name == "data" else value)

    return PlainReader(path)


def _value(name: str, field: Any) -> Any:
    """A key's value; floats as short as float32 allows, and of a vocabulary only its length."""
    if name.startswith("tokenizer.") and len(field.data) > 1:
        return len(field.data)
    value = field.contents()
    if field.types and field.types[-1].name == "FLOAT32":
        short = [float(str(np.float32(x))) for x in (value if isinstance(value, list) else [value])]
        return short if isinstance(value, list) else short[0]
    return value


def _is_small(tensor: Any) -> bool:
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


def load_gguf(path: Path, config: PretrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    """The de-quantised model, on the CPU, with `config` as `gguf_config` gives it."""
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            path.parent,
            gguf_file=path.name,
            config=copy.deepcopy(config),
            dtype=dtype,
            attn_implementation="eager",
            output_loading_info=True,
            **_dequantized(),
        )
    except (*DAMAGE, RuntimeError, NotImplementedError, ImportError) as error:
        raise InputError(f"transformers cannot read {path}: {one_line(error)}") from error
    hf, info = loaded
    if left_out := sorted([*info["missing_keys"], *map(str, info["mismatched_keys"])]):
        raise InputError(f"transformers found no tensor for {left_out[0]} in {path}")
    _forget_quantization(hf)
    hf.generation_config.eos_token_id = _stop_ids(read_gguf(path))
    return hf.eval()


def _dequantized() -> dict[str, Any]:
    """The option that keeps transformers from packing weights where `kernels` is installed."""
    try:
        from transformers import GgufConfig
    except ImportError:  # a transformers that always unpacks
        return {}
    return {"quantization_config": GgufConfig(dequantize=True)}


def _forget_quantization(hf: Any) -> None:
    """Remove the marks of a quantised model: the weights are plain numbers now."""
    for owner, names in (
        (hf.config, ("quantization_config",)),
        (hf, ("hf_quantizer", "quantization_method", "is_quantized")),
    ):
        for name in names:
            if name in vars(owner):
                delattr(owner, name)


def _stop_ids(file: GgufFile) -> list[int] | None:
    ids = [file.values.get(f"tokenizer.ggml.{key}") for key in STOP_KEYS]
    return list(dict.fromkeys(i for i in ids if i is not None)) or None
