"""Load a checkpoint as a TransformerLens model and prove that the two agree."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import torch
from transformer_lens import HookedTransformer
from transformer_lens.loading_from_pretrained import get_pretrained_state_dict
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.sources import build_bridge_from_module
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from saelens_steer.errors import InputError
from saelens_steer.model import parity
from saelens_steer.model.adapters import is_adapter, merged, read_adapter
from saelens_steer.model.architectures import hooked_config, why_bridge
from saelens_steer.model.checkpoint import Checkpoint, from_folder
from saelens_steer.model.configs import weightless
from saelens_steer.model.gguf import find_gguf, from_gguf
from saelens_steer.model.memory import from_memory
from saelens_steer.model.model_class import Model, ModelClass
from saelens_steer.model.proof import WHOLE, float32_twin
from saelens_steer.model.provenance import REMEMBERED, ModelOrigin, reader_of, set_origin
from saelens_steer.model.settings import context_length, rope_theta
from saelens_steer.model.snapshot import find_snapshot
from saelens_steer.model.tokenizer import set_own_tokenizer, stop_ids
from saelens_steer.progress import progress, say, say_once
from saelens_steer.tensors import first_unfinite, usable_device

T = TypeVar("T")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
QUICK = 20_000_000
"""Parameters up to which a proof takes about a second."""


@dataclass(frozen=True)
class LoadRequest:
    """How to load a checkpoint."""

    name: str
    tokenizer: PreTrainedTokenizerBase
    dtype: torch.dtype
    device: str
    n_ctx: int
    model_class: ModelClass = "HookedTransformer"


def load_model(
    name: str | Path | PreTrainedModel,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    model_class: ModelClass = "HookedTransformer",
    dtype: str | torch.dtype = "float32",
    device: str = "auto",
    n_ctx: int | None = None,
    revision: str | None = None,
) -> Model:
    """Load a TransformerLens model, weights unprocessed, and check that it equals its checkpoint.

    `name` is "tiny-qwen3", a folder, a hub id, one of TransformerLens's aliases such as gpt2-small,
    or a transformers model with its `tokenizer`. A checkpoint that no HookedTransformer can
    represent loads as a TransformerBridge, with a message. `n_ctx` defaults to the model's maximum,
    capped at 4,096. InputError if the checkpoint cannot be loaded; ParityError if the loaded model
    disagrees with the Hugging Face model.
    """
    found = find_model(
        name, tokenizer, model_class, dtype=dtype, device=device, n_ctx=n_ctx, revision=revision
    )
    return found.loaded


@dataclass(frozen=True)
class FoundModel:
    """A checkpoint and how to load it, before its weights are read."""

    checkpoint: Checkpoint
    request: LoadRequest

    @cached_property
    def loaded(self) -> Model:
        """The model, proved to equal its checkpoint."""
        with progress(f"loading {self.checkpoint.name}", None):
            return _load_proven(self.checkpoint, self.request)

    @property
    def weightless(self) -> Model:
        """The model without memory for its weights: its config, hooks and tokenizer.

        The loaded model if TransformerLens needs the weights to build it, as for a bridge that
        splits fused projections.
        """
        hf = weightless(self.checkpoint.config)
        hf = hf.to(self.request.dtype)  # pyright: ignore[reportArgumentType]
        if self.request.model_class == "TransformerBridge":
            try:
                return _bridge(hf, self.request)
            except NotImplementedError:
                return self.loaded
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            return _unfilled(hf, self.request)


def find_model(
    name: str | Path | PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None = None,
    model_class: ModelClass = "HookedTransformer",
    *,
    dtype: str | torch.dtype = "float32",
    device: str = "auto",
    n_ctx: int | None = None,
    revision: str | None = None,
) -> FoundModel:
    """The model that `load_model` would load; reads its config and its tokenizer."""
    _one_of(BUILDERS, model_class, "model class")
    torch_dtype = _one_of(DTYPES, str(dtype).removeprefix("torch."), "dtype")
    device = usable_device(device)
    checkpoint = find_checkpoint(name, tokenizer, revision)
    request = LoadRequest(
        name=checkpoint.name,
        tokenizer=checkpoint.tokenizer,
        dtype=torch_dtype,
        device=device,
        n_ctx=context_length(checkpoint.config, n_ctx),
        model_class=_class_that_fits(checkpoint, model_class),
    )
    return FoundModel(checkpoint, request)


def find_checkpoint(
    name: str | Path | PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None = None,
    revision: str | None = None,
) -> Checkpoint:
    """The checkpoint that a name or a model in memory refers to. New formats are added here."""
    if isinstance(name, PreTrainedModel):
        return from_memory(name, tokenizer)
    if not isinstance(name, str | Path):
        raise InputError(
            f"load_model takes a name, a folder or a transformers model, not {type(name).__name__};"
            " a TransformerLens model needs no loading: pass it where a model is expected."
        )
    if file := find_gguf(str(name), revision):
        return from_gguf(str(name), file, tokenizer)
    folder = find_snapshot(str(name), revision)
    if is_adapter(folder):
        adapter = read_adapter(str(name), folder)
        return merged(adapter, from_folder(adapter.base, adapter.find_base()), tokenizer)
    return from_folder(str(name), folder, tokenizer)


def _class_that_fits(checkpoint: Checkpoint, asked: ModelClass) -> ModelClass:
    """TransformerBridge if a HookedTransformer cannot represent the checkpoint."""
    reason = why_bridge(checkpoint.config) if asked == "HookedTransformer" else None
    if reason is None:
        return asked
    say_once(_class_that_fits, f"{checkpoint.name} loads as a TransformerBridge: {reason}")
    return "TransformerBridge"


def checkpoint_of(model: Model) -> PreTrainedModel:
    """The Hugging Face model that `model` was loaded from, with its dtype and device."""
    read, cfg = reader_of(model), model.cfg
    if read is None:
        raise InputError("this model was not loaded by load_model, so its checkpoint is unknown")
    return read(cfg.dtype).to(str(cfg.device))  # pyright: ignore[reportArgumentType]


def _load_proven(checkpoint: Checkpoint, spec: LoadRequest) -> Model:
    """Load the model, prove it unless a proof is remembered, and record its origin."""
    lengths = parity.probe_lengths(checkpoint.config, spec.n_ctx)
    key = parity.parity_key(
        checkpoint.fingerprint, spec.dtype, spec.model_class, spec.device, lengths
    )
    remembered = parity.recall(key)
    hf = checkpoint.read(spec.dtype)
    _check_finite(hf, spec)
    stops = stop_ids(hf, spec.tokenizer)
    if remembered is None:
        if hf.num_parameters() > QUICK:
            say(f"comparing {spec.name} with transformers (later loads skip this)")
        proof = WHOLE if spec.dtype == torch.float32 else _prove_in_float32(hf, spec)
        model, found = _build_and_compare(hf, spec)
        about = {"model": spec.name, "dtype": str(spec.dtype), "class": spec.model_class}
        parity.remember(key, found, {**about, "proof": proof})
    else:
        found, proof = remembered[0], remembered[1] + REMEMBERED
        model = BUILDERS[spec.model_class](hf, spec)
    origin = ModelOrigin(
        name=spec.name,
        folder=checkpoint.source,
        commit=checkpoint.commit,
        fingerprint=checkpoint.fingerprint,
        stop_ids=stops,
        parity=found,
        proof=proof,
    )
    set_origin(model, origin, checkpoint.read)
    return model


def _check_finite(hf: PreTrainedModel, spec: LoadRequest) -> None:
    """Raise InputError for a weight that holds NaN or an infinity.

    Parity cannot find one in the embedding of a token that it does not read.
    """
    for name, weight in hf.named_parameters():
        if (row := first_unfinite(weight)) is not None:
            dtype = str(spec.dtype).removeprefix("torch.")
            raise InputError(
                f"The weights of {spec.name} hold NaN or an infinity in {name}, first at index "
                f"{row}, as {dtype}; download them again, or load them in float32 if they overflow."
            )


def _build_and_compare(hf: PreTrainedModel, spec: LoadRequest) -> tuple[Model, parity.Parity]:
    """Run the checkpoint, convert it, and compare the two; building may take `hf` apart."""
    on_device, config = hf.to(spec.device), hf.config  # pyright: ignore[reportArgumentType]
    theirs = parity.read_hugging_face(on_device, spec.n_ctx)
    model = BUILDERS[spec.model_class](hf, spec)
    proof = parity.compare(parity.read_loaded(model, config), theirs)
    return model, parity.check(proof, model.cfg.dtype, spec.name)


def _prove_in_float32(hf: PreTrainedModel, spec: LoadRequest) -> str:
    """Prove the model, or the layers that matter, where rounding cannot hide a loading error."""
    twin, proof = float32_twin(hf)
    _build_and_compare(twin, spec)
    return proof


def _hooked_transformer(hf: PreTrainedModel, spec: LoadRequest) -> HookedTransformer:
    """Rebuild the model from TransformerLens's modules, with unprocessed weights."""
    hf = hf.to("cpu")  # pyright: ignore[reportArgumentType]
    model = _unfilled(hf, spec)
    cfg = model.cfg
    weights = get_pretrained_state_dict(os.sep, cfg, hf, dtype=hf.dtype)
    if cfg.positional_embedding_type != "rotary":  # with ALiBi, TransformerLens makes an unused one
        positions = weights.get("pos_embed.W_pos", torch.zeros(spec.n_ctx, cfg.d_model))
        weights["pos_embed.W_pos"] = positions[: spec.n_ctx]
    # at once: load_and_process_state_dict walks the whole model for each tensor, and passes float64
    # weights through float32
    model.load_state_dict(model.fill_missing_keys(weights), strict=False)
    return model


def _unfilled(hf: PreTrainedModel, spec: LoadRequest) -> HookedTransformer:
    """TransformerLens's modules with their first weights."""
    cfg = hooked_config(hf.config, hf.dtype)
    cfg.device, cfg.n_ctx, cfg.model_name = spec.device, spec.n_ctx, spec.name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        model = HookedTransformer(cfg, move_to_device=hf.device.type != "meta")
    set_own_tokenizer(model, spec.tokenizer)
    cfg.tokenizer_name = spec.tokenizer.name_or_path or None
    return model.eval()


def _bridge(hf: PreTrainedModel, spec: LoadRequest) -> TransformerBridge:
    """Wrap the Hugging Face module."""
    config: PretrainedConfig = hf.config
    model = build_bridge_from_module(
        hf if hf.device.type == "meta" else hf.to(spec.device),  # pyright: ignore[reportArgumentType]
        (config.architectures or ["none"])[0],
        hf_config=config,
        dtype=hf.dtype,
        device=spec.device,
        model_name=spec.name,
    )
    model.cfg.n_ctx = spec.n_ctx
    model.cfg.rotary_base = int(rope_theta(config))  # TransformerLens leaves it at 10,000
    set_own_tokenizer(model, spec.tokenizer)
    return model.eval()


BUILDERS: dict[str, Callable[[PreTrainedModel, LoadRequest], Model]] = {
    "HookedTransformer": _hooked_transformer,
    "TransformerBridge": _bridge,
}


def _one_of(known: Mapping[str, T], name: str, what: str) -> T:
    """The entry `name`; InputError if there is none."""
    if name not in known:
        raise InputError(f"No {what} {name!r}; use one of: {', '.join(known)}.")
    return known[name]
