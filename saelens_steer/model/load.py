"""load_model: a checkpoint becomes a TransformerLens model that is proved to equal it."""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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

from saelens_steer.errors import InputError
from saelens_steer.model import parity
from saelens_steer.model.architectures import (
    context_length,
    hooked_config,
    layer_types,
    own_code,
    read_config,
    rope_theta,
)
from saelens_steer.model.model_class import Model, ModelClass
from saelens_steer.model.snapshot import find_snapshot, snapshot_commit, snapshot_fingerprint
from saelens_steer.model.source import Source, set_source, source_of

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "tokenizer.model")
ASKED = "trust_remote_code=True"
"""In what transformers says where it would have to run code of the checkpoint."""


@dataclass(frozen=True)
class Job:
    """What is to be loaded, and how."""

    name: str
    folder: Path
    config: PretrainedConfig
    tokenizer: PreTrainedTokenizerBase
    dtype: torch.dtype
    device: str
    n_ctx: int


def load_model(
    name: str,
    *,
    model_class: ModelClass = "HookedTransformer",
    dtype: str = "float32",
    device: str = "auto",
    n_ctx: int | None = None,
    revision: str | None = None,
) -> Model:
    """A TransformerLens model with unprocessed weights, proved equal to its checkpoint.

    `name` is "tiny-qwen3", a folder, or a hub id of a dense Qwen3, Qwen2.5, Llama or Gemma 3
    (text); `n_ctx` defaults to the model's own up to 4,096. InputError for anything that cannot
    be loaded, ParityError where the loaded model does not compute what the Hugging Face model
    does.
    """
    build = _builder(model_class)
    torch_dtype, device = _dtype(dtype), _device(device)
    folder = find_snapshot(name, revision)
    config = read_config(folder, name)
    length = context_length(config, n_ctx)
    job = Job(name, folder, config, _tokenizer(folder, name), torch_dtype, device, length)
    return _load_proven(job, build, model_class)


def checkpoint_of(model: Model) -> PreTrainedModel:
    """The plain Hugging Face model that a model was loaded from, in its dtype, on its device."""
    source, cfg = source_of(model), model.cfg
    if source is None:
        raise InputError("this model was not loaded by load_model: its checkpoint is not known")
    folder, device = Path(source.folder), str(cfg.device)
    config = read_config(folder, source.name)
    job = Job(source.name, folder, config, model.tokenizer, cfg.dtype, device, cfg.n_ctx)  # pyright: ignore[reportArgumentType]
    return _hugging_face(job, config, cfg.dtype).to(device)  # pyright: ignore[reportArgumentType]


def _load_proven(job: Job, build: Callable[[PreTrainedModel, Job], Model], kind: str) -> Model:
    """Load, prove unless that was done before, and note where the model came from."""
    fingerprint = snapshot_fingerprint(job.folder)
    lengths = parity.probe_lengths(job.config, job.n_ctx)
    key = parity.parity_key(fingerprint, job.dtype, kind, job.device, lengths)
    proof = parity.recall(key)
    if proof is None and job.dtype != torch.float32:
        _prove_shallow(job, build)
    hf = _hugging_face(job, job.config, job.dtype)
    stop_ids = _stop_ids(hf, job.tokenizer)
    if proof is None:
        model, proof = _build_and_compare(hf, job, build)
        parity.remember(key, proof, {"model": job.name, "dtype": str(job.dtype), "class": kind})
    else:
        model = build(hf, job)
    commit = snapshot_commit(job.folder)
    set_source(model, Source(job.name, str(job.folder), commit, fingerprint, stop_ids, proof))
    return model


def _build_and_compare(
    hf: PreTrainedModel, job: Job, build: Callable[[PreTrainedModel, Job], Model]
) -> tuple[Model, parity.Parity]:
    """Read the checkpoint's answer before it is taken apart, then compare ours with it."""
    on_device = hf.to(job.device)  # pyright: ignore[reportArgumentType]
    theirs = parity.read_hugging_face(on_device, job.n_ctx)
    model = build(hf, job)
    proof = parity.compare(parity.read_loaded(model, job.config), theirs)
    return model, parity.check(proof, job.dtype, job.name)


def _prove_shallow(job: Job, build: Callable[[PreTrainedModel, Job], Model]) -> None:
    """Prove the first layers in float32, where rounding cannot hide a wrong loading."""
    config = copy.deepcopy(job.config)
    config.num_hidden_layers = parity.shallow_layers(layer_types(config))
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[: config.num_hidden_layers]
    shallow = Job(**{**vars(job), "config": config, "dtype": torch.float32})
    _build_and_compare(_hugging_face(shallow, config, torch.float32), shallow, build)


def _builder(model_class: str) -> Callable[[PreTrainedModel, Job], Model]:
    """The function that makes a model of this class."""
    builders = {"HookedTransformer": _hooked_transformer, "TransformerBridge": _bridge}
    if model_class not in builders:
        raise InputError(f"No model class {model_class!r}; use one of: {', '.join(builders)}.")
    return builders[model_class]


def _hooked_transformer(hf: PreTrainedModel, job: Job) -> HookedTransformer:
    """Rebuild the model in TransformerLens's own modules, weights unprocessed."""
    cfg = hooked_config(job.config, job.dtype)
    cfg.device, cfg.n_ctx, cfg.model_name = job.device, job.n_ctx, job.name
    cfg.tokenizer_name = str(job.folder)
    cfg.default_prepend_bos = job.tokenizer.bos_token_id is not None
    hf = hf.to("cpu")  # pyright: ignore[reportArgumentType]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        model = HookedTransformer(cfg, copy.deepcopy(job.tokenizer), default_padding_side="left")
    weights = get_pretrained_state_dict(str(job.folder), cfg, hf, dtype=job.dtype)
    model.load_and_process_state_dict(
        weights,
        fold_ln=False,
        center_writing_weights=False,
        center_unembed=False,
        fold_value_biases=False,
    )
    return model.eval()


def _bridge(hf: PreTrainedModel, job: Job) -> TransformerBridge:
    """Wrap the Hugging Face module itself."""
    model = TransformerBridge.boot_transformers(
        str(job.folder),
        hf_model=hf.to(job.device),  # pyright: ignore[reportArgumentType]
        tokenizer=copy.deepcopy(job.tokenizer),
        device=job.device,
        dtype=job.dtype,
        trust_remote_code=False,
    )
    model.tokenizer.padding_side = "left"
    model.cfg.n_ctx, model.cfg.model_name = job.n_ctx, job.name
    model.cfg.rotary_base = int(rope_theta(job.config))  # left at 10,000 by TransformerLens
    model.cfg.default_prepend_bos = job.tokenizer.bos_token_id is not None
    return model.eval()


def _hugging_face(job: Job, config: PretrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    """The checkpoint as a Hugging Face model on the CPU; InputError for damaged weights."""
    try:
        with _quiet():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                job.folder,
                config=copy.deepcopy(config),
                dtype=dtype,
                use_safetensors=True,
                trust_remote_code=False,
                attn_implementation="eager",
                output_loading_info=True,
            )
    except (SafetensorError, OSError, RuntimeError, ValueError) as e:
        if ASKED in str(e):
            raise own_code(job.name) from e
        reason = str(e).splitlines()[0]
        raise InputError(f"The weights of {job.name} cannot be read ({reason}).") from e
    hf, info = loaded
    if info["missing_keys"]:
        raise InputError(
            f"The weights of {job.name} lack {sorted(info['missing_keys'])[0]}; download it again."
        )
    return hf.eval()


def _tokenizer(folder: Path, name: str) -> PreTrainedTokenizerBase:
    """The checkpoint's tokenizer, with a padding token; transformers makes one up without files."""
    if not any((folder / file).is_file() for file in TOKENIZER_FILES):
        raise InputError(f"There is no tokenizer in {folder}; add its tokenizer.json.")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as e:
        if ASKED in str(e):
            raise own_code(name) from e
        raise InputError(f"The tokenizer in {folder} cannot be read; replace its files.") from e
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    # TransformerLens reads it again with these, among which tokenizer_config.json may have put True
    tokenizer.init_kwargs["trust_remote_code"] = False
    return tokenizer


def _stop_ids(hf: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """The tokenizer's end of turn first, then what generation_config.json adds."""
    declared = getattr(hf.generation_config, "eos_token_id", None)
    more = declared if isinstance(declared, list) else [declared]
    ids = [tokenizer.eos_token_id, *more]
    return tuple(dict.fromkeys(int(i) for i in ids if i is not None))  # pyright: ignore


def _dtype(name: str) -> torch.dtype:
    """The torch dtype of this name."""
    if name not in DTYPES:
        raise InputError(f"No dtype {name!r}; use one of: {', '.join(DTYPES)}.")
    return DTYPES[name]


def _device(name: str) -> str:
    """The device to load to; `auto` is cuda where there is one, else cpu."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as e:
        raise InputError(f"The device {name!r} is not available here; use auto or cpu.") from e
    return name


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No progress bar for reading weights from disk."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()
