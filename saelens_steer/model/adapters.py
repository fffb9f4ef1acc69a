"""LoRA adapters: merged into the base that they name, or refused, never silently left out."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from saelens_steer.errors import InputError, one_line
from saelens_steer.model.parity import tolerance
from saelens_steer.model.snapshot import ADAPTER_CONFIG, content_hash, find_snapshot, weight_files
from saelens_steer.model.tokenizer import TOKENIZER_FILES, read_tokenizer

if TYPE_CHECKING:
    from saelens_steer.model.checkpoint import Checkpoint, Reader

WEIGHTS = "adapter_model.safetensors"
MERGED_ELSEWHERE = "merge it into its base (peft's merge_and_unload) and give the merged folder"
ADAPTER_WEIGHT = re.compile(r"(^|[._])lora_|\.base_layer\.|\.modules_to_save\.")
"""Matches names of an adapter's weights, and of the layers that one is attached to."""
NOT_A_SUM = (
    "alora_invocation_tokens",
    "arrow_config",
    "layer_replication",
    "megatron_config",  # imports a module that the file names
    "monteclora_config",
)
"""Settings of adapters that cannot be expressed in the base's weights, or need other code."""


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter, and the base that it was trained on."""

    name: str
    folder: Path
    base: str
    revision: str | None

    def find_base(self) -> Path:
        """The folder of the base, which is downloaded unless cached."""
        try:
            folder = find_snapshot(self.base, self.revision)
        except InputError as error:
            raise InputError(f"The adapter {self.name} needs its base: {error}") from error
        if is_adapter(folder):
            raise InputError(
                f"The adapter {self.name} is made for {self.base}, which is itself an adapter: "
                f"{MERGED_ELSEWHERE}"
            )
        return folder


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter."""
    return (folder / ADAPTER_CONFIG).is_file()


def read_adapter(name: str, folder: Path) -> Adapter:
    """The adapter in a folder; InputError unless it is a LoRA that peft can merge."""
    try:
        about = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        kind, base = about["peft_type"], about["base_model_name_or_path"]
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise InputError(
            f"{folder / ADAPTER_CONFIG} does not describe an adapter ({one_line(error)}): "
            f"{MERGED_ELSEWHERE}"
        ) from error
    if kind != "LORA" or any(about.get(setting) for setting in NOT_A_SUM):
        raise InputError(f"{name} is an adapter of type {_kind(about)}: {MERGED_ELSEWHERE}")
    if not base or not isinstance(base, str):
        raise InputError(
            f"{folder / ADAPTER_CONFIG} names no base: write the folder or hub id of the model it "
            "was trained on as base_model_name_or_path"
        )
    _check_files(name, folder)
    if importlib.util.find_spec("peft") is None:
        raise InputError(
            f"{name} is a LoRA adapter for {base}, and merging it needs the package peft: "
            "pip install saelens-steer[peft]"
        )
    return Adapter(name, folder, base, about.get("revision"))


def _kind(about: dict[str, Any]) -> str:
    """The kind of adapter, with the setting that keeps it from being merged."""
    return " with ".join([str(about["peft_type"]), *(s for s in NOT_A_SUM if about.get(s))])


def _check_files(name: str, folder: Path) -> None:
    """InputError unless the only weights are the adapter's, in safetensors."""
    if not (folder / WEIGHTS).is_file():
        raise InputError(
            f"The adapter {name} has no {WEIGHTS} in {folder}: convert it, as pickled weights "
            "(.bin) are never read"
        )
    others = [file.name for file in weight_files(folder) if file.name != WEIGHTS]
    if others:
        raise InputError(
            f"The folder {name} holds an adapter and also {others[0]}: give a folder with either "
            "the adapter or the whole model"
        )


def merged(
    adapter: Adapter, base: Checkpoint, tokenizer: PreTrainedTokenizerBase | None
) -> Checkpoint:
    """The base with the adapter merged into it; a tokenizer beside the adapter takes precedence."""
    if tokenizer is None and any((adapter.folder / file).is_file() for file in TOKENIZER_FILES):
        tokenizer = read_tokenizer(adapter.folder, adapter.name)
    files = [adapter.folder / ADAPTER_CONFIG, adapter.folder / WEIGHTS]
    parts = [base.fingerprint, *map(content_hash, files)]
    return replace(
        base,
        name=adapter.name,
        source=str(adapter.folder),
        tokenizer=base.tokenizer if tokenizer is None else tokenizer,
        fingerprint=hashlib.sha256("\n".join(parts).encode()).hexdigest(),
        commit=None,
        read=lambda dtype: _merge(adapter, base.read, dtype),
    )


def _merge(adapter: Adapter, read_base: Reader, dtype: torch.dtype) -> PreTrainedModel:
    """The base with the adapter in its weights, checked against the unmerged pair."""
    from peft import PeftConfig, PeftModel

    hf = read_base(dtype)
    try:
        model = PeftModel(hf, PeftConfig.from_pretrained(str(adapter.folder)))
        result = model.load_adapter(str(adapter.folder), "default", is_trainable=False)
        if strangers := [*result.unexpected_keys, *result.missing_keys]:
            raise InputError(f"{strangers[0]} is in only one of the adapter and its base")
        before = _logits(model.eval())
        whole: Any = model.merge_and_unload(safe_merge=True)
    except (ValueError, RuntimeError, KeyError, TypeError, SafetensorError, OSError) as error:
        raise InputError(
            f"The adapter {adapter.name} does not fit {adapter.base}: {one_line(error)}"
        ) from error
    difference = float((_logits(whole) - before).norm() / before.norm())
    if not difference <= tolerance(dtype):
        raise InputError(
            f"The adapter {adapter.name} cannot be merged: the logits would change by "
            f"{difference:.1e}, as happens if it changes tied embeddings"
        )
    return whole.requires_grad_(False).eval()


@torch.no_grad()
def _logits(model: Any) -> torch.Tensor:
    """Logits of a few arbitrary tokens, in float32."""
    tokens = torch.arange(16).unsqueeze(0) % model.config.vocab_size
    return model(input_ids=tokens).logits.float()


def refuse_adapter_weights(name: str, folder: Path) -> None:
    """InputError for a full checkpoint that contains an unmerged adapter."""
    for file in weight_files(folder):
        try:
            with safe_open(file, framework="pt") as weights:
                names = weights.keys()
            found = next((name for name in names if ADAPTER_WEIGHT.search(name)), None)
        except (SafetensorError, OSError):  # reported when it is loaded
            continue
        if found:
            raise InputError(
                f"The weights of {name} hold {found}, part of a LoRA adapter: {MERGED_ELSEWHERE}"
            )
