"""LoRA adapters: merged into the base that they name, or refused, never silently left out."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from saelens_steer.errors import InputError, one_line
from saelens_steer.model.checkpoint import MERGED_ELSEWHERE, Checkpoint
from saelens_steer.model.memory import apart, few_logits, rebuilt
from saelens_steer.model.parity import FLOAT32_TOLERANCE
from saelens_steer.model.provenance import Reader
from saelens_steer.model.snapshot import ADAPTER_CONFIG, content_hash, find_snapshot, weight_files
from saelens_steer.model.tokenizer import TOKENIZER_FILES, read_tokenizer, with_tokenizer

WEIGHTS = "adapter_model.safetensors"
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
            f"{name} is a LoRA adapter for {base}, and merging it needs the peft package: "
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
    parts = "\n".join([base.fingerprint, *map(content_hash, files)])
    return replace(
        base,
        name=adapter.name,
        source=str(adapter.folder),
        tokenizer=base.tokenizer if tokenizer is None else tokenizer,
        fingerprint=with_tokenizer(hashlib.sha256(parts.encode()).hexdigest(), tokenizer),
        commit=None,
        read=lambda dtype: _merge(adapter, base.read, dtype),
    )


def _merge(adapter: Adapter, read_base: Reader, dtype: torch.dtype) -> PreTrainedModel:
    """The base with the adapter in its weights, checked against the unmerged pair.

    Both are in float32, since in half precision a wrong merge could pass for rounding.
    """
    from peft import PeftConfig, PeftModel

    hf = read_base(torch.float32)
    try:
        model: Any = PeftModel(hf, PeftConfig.from_pretrained(str(adapter.folder)))
        result = model.load_adapter(str(adapter.folder), "default", is_trainable=False)
        if strangers := [*result.unexpected_keys, *result.missing_keys]:
            raise InputError(f"the adapter and its base do not match: only one has {strangers[0]}")
        before = few_logits(model.eval(), hf.config)
        whole: Any = model.merge_and_unload(safe_merge=True)
    except (ValueError, RuntimeError, KeyError, TypeError, SafetensorError, OSError) as error:
        raise InputError(
            f"The adapter {adapter.name} does not fit {adapter.base}: {one_line(error)}"
        ) from error
    difference = apart(few_logits(whole, whole.config), before)
    if not difference <= FLOAT32_TOLERANCE:
        raise InputError(
            f"The adapter {adapter.name} cannot be merged: the logits would change by "
            f"{difference:.1e}, usually because the adapter changes tied embeddings"
        )
    whole.requires_grad_(False).eval()
    if dtype == torch.float32:
        return whole
    cast = rebuilt(adapter.name, whole.state_dict(), whole.config, dtype)
    cast.generation_config = whole.generation_config
    return cast
