"""Load a checkpoint as a TransformerLens model and prove that the two agree."""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from transformer_lens import HookedTransformer
from transformer_lens.loading_from_pretrained import get_pretrained_state_dict
from transformer_lens.model_bridge import TransformerBridge
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from saelens_steer.errors import InputError, first_line
from saelens_steer.model import parity
from saelens_steer.model.architectures import (
    context_length,
    hooked_config,
    layer_types,
    needs_own_code,
    read_config,
    rope_theta,
)
from saelens_steer.model.model_class import Model, ModelClass
from saelens_steer.model.provenance import ModelOrigin, origin_of, set_origin
from saelens_steer.model.snapshot import find_snapshot, snapshot_commit, snapshot_fingerprint

T = TypeVar("T")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "tokenizer.model")
WANTS_CODE = "trust_remote_code=True"
"""In every message by which transformers asks to run a checkpoint's own code."""


@dataclass(frozen=True)
class LoadRequest:
    """A checkpoint, and how to load it."""

    name: str
    folder: Path
    config: PretrainedConfig
    tokenizer: PreTrainedTokenizerBase
    dtype: torch.dtype
    device: str
    n_ctx: int
    model_class: ModelClass = "HookedTransformer"


def load_model(
    name: str,
    *,
    model_class: ModelClass = "HookedTransformer",
    dtype: str = "float32",
    device: str = "auto",
    n_ctx: int | None = None,
    revision: str | None = None,
) -> Model:
    """Load a TransformerLens model, weights unprocessed, and prove that it equals its checkpoint.

    `name` is "tiny-qwen3", a folder, or the hub id of a dense Qwen3, Qwen2.5, Llama or text-only
    Gemma 3. `n_ctx` defaults to the model's maximum, capped at 4,096. InputError if the checkpoint
    cannot be loaded; ParityError if the loaded model disagrees with the Hugging Face model.
    """
    _one_of(BUILDERS, model_class, "model class")
    torch_dtype, device = _one_of(DTYPES, dtype, "dtype"), _device(device)
    folder = find_snapshot(name, revision)
    config = read_config(folder, name)
    length = context_length(config, n_ctx)
    tokenizer = _tokenizer(folder, name)
    return _load_proven(
        LoadRequest(name, folder, config, tokenizer, torch_dtype, device, length, model_class)
    )


def checkpoint_of(model: Model) -> PreTrainedModel:
    """The Hugging Face model that `model` was loaded from, with its dtype and device."""
    origin, cfg = origin_of(model), model.cfg
    if origin is None:
        raise InputError("this model was not loaded by load_model, so its checkpoint is unknown")
    folder, name = Path(origin.folder), origin.name
    hf = _hugging_face(name, folder, read_config(folder, name), cfg.dtype)
    return hf.to(str(cfg.device))  # pyright: ignore[reportArgumentType]


def _load_proven(spec: LoadRequest) -> Model:
    """Load the model, prove it unless a proof is remembered, and record its origin."""
    fingerprint = snapshot_fingerprint(spec.folder)
    lengths = parity.probe_lengths(spec.config, spec.n_ctx)
    key = parity.parity_key(fingerprint, spec.dtype, spec.model_class, spec.device, lengths)
    proof = parity.recall(key)
    if proof is None and spec.dtype != torch.float32:
        _prove_first_layers(spec)
    hf = _hugging_face(spec.name, spec.folder, spec.config, spec.dtype)
    stop_ids = _stop_ids(hf, spec.tokenizer)
    if proof is None:
        model, proof = _build_and_compare(hf, spec)
        about = {"model": spec.name, "dtype": str(spec.dtype), "class": spec.model_class}
        parity.remember(key, proof, about)
    else:
        model = BUILDERS[spec.model_class](hf, spec)
    commit = snapshot_commit(spec.folder)
    set_origin(
        model, ModelOrigin(spec.name, str(spec.folder), commit, fingerprint, stop_ids, proof)
    )
    return model


def _build_and_compare(hf: PreTrainedModel, spec: LoadRequest) -> tuple[Model, parity.Parity]:
    """Run the checkpoint, convert it, and compare the two; building may take `hf` apart."""
    on_device = hf.to(spec.device)  # pyright: ignore[reportArgumentType]
    theirs = parity.read_hugging_face(on_device, spec.n_ctx)
    model = BUILDERS[spec.model_class](hf, spec)
    proof = parity.compare(parity.read_loaded(model, spec.config), theirs)
    return model, parity.check(proof, spec.dtype, spec.name)


def _prove_first_layers(spec: LoadRequest) -> None:
    """Prove the first layers in float32, in which rounding cannot hide a loading error."""
    config = copy.deepcopy(spec.config)
    config.num_hidden_layers = parity.shallow_layers(layer_types(config))
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[: config.num_hidden_layers]
    hf = _hugging_face(spec.name, spec.folder, config, torch.float32)
    _build_and_compare(hf, replace(spec, config=config, dtype=torch.float32))


def _hooked_transformer(hf: PreTrainedModel, spec: LoadRequest) -> HookedTransformer:
    """Rebuild the model from TransformerLens's modules, with unprocessed weights."""
    cfg = hooked_config(spec.config, spec.dtype)
    cfg.device, cfg.n_ctx, cfg.model_name = spec.device, spec.n_ctx, spec.name
    cfg.tokenizer_name = str(spec.folder)
    cfg.default_prepend_bos = spec.tokenizer.bos_token_id is not None
    hf = hf.to("cpu")  # pyright: ignore[reportArgumentType]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        model = HookedTransformer(cfg, copy.deepcopy(spec.tokenizer), default_padding_side="left")
    weights = get_pretrained_state_dict(str(spec.folder), cfg, hf, dtype=spec.dtype)
    model.load_and_process_state_dict(
        weights,
        fold_ln=False,
        center_writing_weights=False,
        center_unembed=False,
        fold_value_biases=False,
    )
    return model.eval()


def _bridge(hf: PreTrainedModel, spec: LoadRequest) -> TransformerBridge:
    """Wrap the Hugging Face module."""
    model = TransformerBridge.boot_transformers(
        str(spec.folder),
        hf_model=hf.to(spec.device),  # pyright: ignore[reportArgumentType]
        tokenizer=copy.deepcopy(spec.tokenizer),
        device=spec.device,
        dtype=spec.dtype,
        trust_remote_code=False,
    )
    model.tokenizer.padding_side = "left"
    model.cfg.n_ctx, model.cfg.model_name = spec.n_ctx, spec.name
    model.cfg.rotary_base = int(rope_theta(spec.config))  # TransformerLens leaves it at 10,000
    model.cfg.default_prepend_bos = spec.tokenizer.bos_token_id is not None
    return model.eval()


BUILDERS: dict[str, Callable[[PreTrainedModel, LoadRequest], Model]] = {
    "HookedTransformer": _hooked_transformer,
    "TransformerBridge": _bridge,
}


def _hugging_face(
    name: str, folder: Path, config: PretrainedConfig, dtype: torch.dtype
) -> PreTrainedModel:
    """The checkpoint as a Hugging Face model on the CPU; InputError if its weights are damaged."""
    try:
        with _quiet():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                folder,
                config=copy.deepcopy(config),
                dtype=dtype,
                use_safetensors=True,
                trust_remote_code=False,
                attn_implementation="eager",
                output_loading_info=True,
            )
    except (SafetensorError, OSError, RuntimeError, ValueError) as e:
        if WANTS_CODE in str(e):
            raise needs_own_code(name) from e
        raise InputError(
            f"The weights of {name} cannot be read ({first_line(e)}); download them again."
        ) from e
    hf, info = loaded
    if info["missing_keys"]:
        raise InputError(
            f"The weights of {name} lack {sorted(info['missing_keys'])[0]}; download them again."
        )
    return hf.eval()


def _tokenizer(folder: Path, name: str) -> PreTrainedTokenizerBase:
    """The tokenizer, with a padding token; without files transformers would invent one."""
    if not any((folder / file).is_file() for file in TOKENIZER_FILES):
        raise InputError(f"There is no tokenizer in {folder}; add tokenizer.json.")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as e:
        if WANTS_CODE in str(e):
            raise needs_own_code(name) from e
        raise InputError(f"The tokenizer in {folder} cannot be read; replace its files.") from e
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    # TransformerLens reloads the tokenizer with these; tokenizer_config.json may have set this True
    tokenizer.init_kwargs["trust_remote_code"] = False
    return tokenizer


def _stop_ids(hf: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """The tokenizer's EOS, then the others in generation_config.json."""
    declared = getattr(hf.generation_config, "eos_token_id", None)
    more = declared if isinstance(declared, list) else [declared]
    ids = [tokenizer.eos_token_id, *more]
    return tuple(dict.fromkeys(int(i) for i in ids if i is not None))  # pyright: ignore


def _one_of(known: Mapping[str, T], name: str, what: str) -> T:
    """The entry `name`; InputError if there is none."""
    if name not in known:
        raise InputError(f"No {what} {name!r}; use one of: {', '.join(known)}.")
    return known[name]


def _device(name: str) -> str:
    """The device name, with `auto` resolved to cuda if available, else cpu."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as e:
        raise InputError(f"The device {name!r} is not available here; use auto or cpu.") from e
    return name


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide transformers' progress bar for loading weights."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()
