"""Folders in SAELens's format, versions 1 to 6: SAEs and the checkpoints of a training.

SAELens reads the settings that its current classes know and silently drops the rest of cfg.json.
Settings that would change the arithmetic are read here or refused: the input scaling that a
checkpoint keeps beside its weights, the scaling factor of old fine-tuned SAEs, other activation
functions, single heads.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from sae_lens import SAE, TrainingSAE
from sae_lens.loading.pretrained_sae_loaders import (
    get_sae_lens_config_from_disk,
    load_safetensors_weights,
)
from sae_lens.registry import SAE_CLASS_REGISTRY, SAE_TRAINING_CLASS_REGISTRY
from safetensors import SafetensorError, safe_open
from torch import Tensor

from saelens_steer.data import note_stated
from saelens_steer.errors import InputError
from saelens_steer.files import read_json
from saelens_steer.sae.conversion import SUFFIXES, from_parts, refusing
from saelens_steer.sae.conversion.normalisation import DECODER_NORMS
from saelens_steer.sae.conversion.unread import changing

SAELENS = ("cfg.json", "sae_weights.safetensors")
"""The files of an SAE in SAELens's format."""
SCALER, WHITENING = "activation_scaler.json", "activation_whitening.safetensors"
"""Input statistics beside a checkpoint's weights."""
ACTIVATION_KEYS = ("activation_fn_str", "activation_fn")
"""Settings of older versions that name the activation function."""
STORE = "activations_store_state.safetensors"
"""State of a training by SAELens 3 to 5, with its input scaling."""
DAMAGE = (
    *(OSError, LookupError, TypeError, AttributeError, ValueError, RuntimeError),
    SafetensorError,
)
"""Exceptions that SAELens raises for files it cannot load."""
TRANSCODERS = (
    *("transcoder", "skip_transcoder"),
    *("jumprelu_transcoder", "jumprelu_skip_transcoder"),
)
TESTED = ("standard", "gated", "topk", "abstopk", "jumprelu", "matching_pursuit", *TRANSCODERS)
"""Architectures that encode, decode and edits are tested with."""


def is_saelens(folder: Path) -> bool:
    """Whether the folder is in SAELens's format, even if incomplete."""
    if (folder / SAELENS[1]).is_file():
        return (folder / SAELENS[0]).is_file() or not (folder / "config.json").is_file()
    others = [p for p in folder.iterdir() if p.suffix in SUFFIXES]
    return (folder / SAELENS[0]).is_file() and not others


def load_folder(folder: Path, device: str) -> SAE[Any]:
    """The SAE in a folder of SAELens's format. Raises InputError."""
    if not (folder / SAELENS[0]).is_file():
        raise InputError(f"{folder} has no cfg.json: it is not an SAE in SAELens's format")
    with refusing(f"SAELens cannot load {folder}", DAMAGE):
        settings = read_json(folder / SAELENS[0])
        stated = _checked_kind(folder, settings)
        architecture = stated["architecture"]
        if architecture in SAE_CLASS_REGISTRY and not _holds(folder / SAELENS[1], "log_threshold"):
            sae = SAE.load_from_disk(str(folder), device=device, converter=partial(_read, stated))
            loaded = sae.cfg.architecture()
        else:
            training = TrainingSAE.load_from_disk(str(folder), device=device)
            loaded, sae = training.cfg.architecture(), _inference(training, device)
        if loaded != architecture:
            raise InputError(
                f"{folder / SAELENS[0]} states {architecture}, but SAELens loads it as "
                f'{loaded}: write "architecture": "{architecture}" into it'
            )
        return _fold_input_statistics(note_stated(sae, settings), folder)


def check_kind(sae: SAE[Any], source: str) -> SAE[Any]:
    """The SAE. Raises InputError for an architecture that is not supported."""
    check_architecture(sae.cfg.architecture(), source)
    return sae


def check_architecture(architecture: str, source: str) -> None:
    """Raise InputError for an architecture that is not supported."""
    if architecture not in TESTED:
        raise InputError(
            f"{source} is a {architecture} SAE, which is not supported; supported: "
            f"{', '.join(TESTED)}"
        )


def _checked_kind(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """The architecture, and k of a TopK SAE, wherever cfg.json states them.

    Raises InputError for settings that SAELens would ignore or invent.
    """
    file, architecture = folder / SAELENS[0], str(settings.get("architecture") or "standard")
    if architecture not in SAE_TRAINING_CLASS_REGISTRY:
        check_architecture(architecture, str(folder))
    kwargs = settings.get("activation_fn_kwargs") or {}
    words = {str(settings[key]) for key in ACTIVATION_KEYS if settings.get(key)} or {"relu"}
    word = " and ".join(sorted(words))
    if word not in ("relu", "topk") or kwargs.get("signed"):
        raise InputError(f"{file} has activation function {word} {kwargs or ''}: not supported")
    if word == "topk" and architecture not in ("standard", "topk"):
        raise InputError(
            f"{file} has architecture {architecture} and activation function topk: remove the "
            "wrong one"
        )
    plain = {
        key: value for key, value in settings.items() if isinstance(value, str | bool | int | float)
    }
    ours = DECODER_NORMS[:1] if architecture.endswith("topk") or word == "topk" else ()
    for key, value in changing(plain, ("normalize_activations", *ours)):
        raise InputError(
            f"{file} has {key}: {value}, which SAELens does not use: remove it if the SAE was "
            "trained without it, or fold it into the weights"
        )
    metadata = settings.get("metadata") or {}
    head = settings.get("hook_head_index", settings.get("hook_point_head_index"))
    head = metadata.get("hook_head_index", head)
    if head is not None:
        raise InputError(
            f"{file} has hook_head_index: {head}: an SAE trained on a single head is not supported"
        )
    if word != "topk" and architecture != "topk":
        return {"architecture": architecture}
    return {"architecture": "topk", "k": _k(file, settings.get("k"), kwargs.get("k"))}


def _k(file: Path, *stated: Any) -> int:
    """The number of active features. Raises InputError without one, and for two."""
    found = {k for k in stated if k is not None}
    if not found:
        raise InputError(f'{file} describes a TopK SAE, but holds no k: write "k": NUMBER into it')
    if len(found) > 1 or not all(isinstance(k, int | float) and k == int(k) > 0 for k in found):
        listed = " and ".join(map(str, found))
        raise InputError(f"{file} has k: {listed}, and k must be one whole number above 0")
    return int(found.pop())


def _read(
    stated: dict[str, Any], path: str | Path, device: str, cfg_overrides: dict[str, Any] | None
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Config as `stated` and state dict, with the factor of fine-tuning folded into W_dec.

    SAELens reads k of an older TopK SAE in one place only, and else loads it as a ReLU SAE.
    """
    settings = get_sae_lens_config_from_disk(path, device, cfg_overrides) | stated
    for key in (*ACTIVATION_KEYS, "activation_fn_kwargs"):
        settings.pop(key, None)
    kind = settings["dtype"]
    state = load_safetensors_weights(Path(path) / SAELENS[1], device=device, dtype=kind)
    factor = state.pop("scaling_factor", None)
    if factor is not None and not bool((factor == 1).all()):
        if not settings.get("finetuning_scaling_factor"):
            raise InputError(
                f"{path} holds scaling_factor, which cfg.json does not use: write "
                '"finetuning_scaling_factor": true into cfg.json, or remove it'
            )
        state["W_dec"] = state["W_dec"] * factor[:, None]
    return settings, state


def _inference(training: TrainingSAE[Any], device: str) -> SAE[Any]:
    """The inference SAE that SAELens would save after training; BatchTopK becomes JumpReLU."""
    state = training.state_dict()
    training.process_state_dict_for_saving_inference(state)
    config = training.cfg.get_inference_sae_cfg_dict()
    metadata = config["metadata"]
    plain = metadata if isinstance(metadata, dict) else metadata.to_dict()
    return from_parts(config | {"metadata": plain, "device": device}, state, device)


@torch.no_grad()
def _fold_input_statistics(sae: SAE[Any], folder: Path) -> SAE[Any]:
    """Fold the scaling or whitening of a checkpoint's input into its weights; z keeps its units."""
    mode, factor = sae.cfg.normalize_activations, _factor(folder)
    if mode == "covariance_whitening":
        _fold_whitening(sae, folder / WHITENING)
    elif mode == "expected_average_only_in":
        if factor is None:
            raise InputError(
                f"{folder} expects scaled activations, but has no scale: create {SCALER} there, "
                'containing {"scaling_factor": NUMBER}, where NUMBER is √d_in / mean ‖x‖ of the '
                "training activations"
            )
        _fold_factor(sae, folder, factor)
    elif factor not in (None, 1.0):
        raise InputError(
            f"{folder / SCALER} has scaling_factor {factor}, but cfg.json has "
            f"normalize_activations: {mode}: one of the two is wrong"
        )
    return sae


def _factor(folder: Path) -> float | None:
    """The number that activations were multiplied by in training, if it lies beside the weights."""
    found = read_json(folder / SCALER).get("scaling_factor")
    name = "estimated_norm_scaling_factor"
    if found is None and _holds(folder / STORE, name):
        with safe_open(folder / STORE, framework="pt") as handle:
            found = handle.get_tensor(name).item()
    if found is not None and not 0 < float(found) < float("inf"):
        raise InputError(f"{folder}: scaling_factor must be a positive number, not {found!r}")
    return None if found is None else float(found)


def _fold_factor(sae: SAE[Any], folder: Path, factor: float) -> None:
    """Make an SAE of factor · x read x, in place."""
    if sae.cfg.architecture() in ("matching_pursuit", *TRANSCODERS):
        kind = sae.cfg.architecture()
        raise InputError(
            f"{folder}: the scale of its activations cannot be folded into a {kind} SAE"
        )
    unit_decoder(sae)
    sae.fold_activation_norm_scaling_factor(factor)


def unit_decoder(sae: SAE[Any]) -> None:
    """Fold the decoder norms that a TopK SAE counts in, so that z does not depend on them."""
    if getattr(sae.cfg, "rescale_acts_by_decoder_norm", False):
        sae.fold_W_dec_norm()
        sae.cfg.rescale_acts_by_decoder_norm = False


def _fold_whitening(sae: SAE[Any], file: Path) -> None:
    if not file.is_file():
        raise InputError(f"{file.parent} expects whitened activations, but holds no {file.name}")
    with safe_open(file, framework="pt") as handle:
        names = ("mean", "matrix", "inverse_matrix")
        sae.fold_activation_whitening(*(handle.get_tensor(name) for name in names))


def _holds(file: Path, name: str) -> bool:
    """Whether a safetensors file exists and holds a tensor of this name."""
    if not file.is_file():
        return False
    with safe_open(file, framework="pt") as handle:
        return name in handle.keys()  # noqa: SIM118


def settings_of(folder: Path) -> list[Path]:
    """The files besides SAELENS that determine what a folder's SAE computes."""
    return [
        path for path in (folder / name for name in (SCALER, WHITENING, STORE)) if path.is_file()
    ]
