"""Normalisation of a checkpoint's input, from its settings and tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from saelens_steer.errors import InputError
from saelens_steer.sae.conversion.checkpoint import Checkpoint, is_number, truth
from saelens_steer.sae.conversion.unread import NO, changing, ignoring

Mode = Literal["none", "dataset", "per_token", "layer_norm", "constant_norm_rescale"]

MEANS = ("activation_mean", "mean", "act_mean", "input_mean")
SCALES = ("activation_norm", "activation_std", "act_std", "input_std")
"""What is subtracted from x, and what divides it; `scale` or `norm` could also multiply it."""
DATASET_NORM = "dataset_average_activation_norm"
"""Of Llama Scope: the mean ‖x‖, by hook or as `in` and `out`; the SAE reads x · √d_in / norm."""
SWITCHES: dict[str, Mode] = {
    **dict.fromkeys(("unit_norm_per_token", "per_token_norm", "per_token_unit_norm"), "per_token"),
    "input_unit_norm": "layer_norm",
}
"""Settings that are true or false; the last is of the library BatchTopK."""
MODE_KEYS = (
    *("normalize_activations", "activation_normalization", "norm_activation", "normalize"),
    *("normalization", "normalize_inputs", "normalize_input", "activation_norm", "norm"),
)
MODES: dict[str, Mode] = {
    **dict.fromkeys(NO, "none"),
    **dict.fromkeys(
        ("unit", "unit_norm", "per_token", "per_token_norm", "per_token_unit_norm", "token"),
        "per_token",
    ),
    **dict.fromkeys(("dataset", "dataset_wise", "mean_norm", "global", "true"), "dataset"),
    "expected_average_only_in": "dataset",
    "layer_norm": "layer_norm",
    **dict.fromkeys(("constant_norm_rescale", "token_wise"), "constant_norm_rescale"),
}
DECODER_NORMS = ("rescale_acts_by_decoder_norm", "sparsity_include_decoder_norm")
"""Settings of SAELens and Llama Scope: pre-activations are multiplied by ‖W_dec[f]‖ before the
activation function, and features are decoded along unit rows."""
UNCLEAR = "unit_norm"
"""Of the input or of the decoder's rows, unless the mode is stated as well."""
READ = (*MEANS, *SCALES, *SWITCHES, *DECODER_NORMS)

NamedVector = tuple[str, Tensor]
"""Name in the checkpoint, and vector in float32."""


@dataclass(frozen=True)
class Normalisation:
    """Normalisation of x before the SAE, undone on its output."""

    mode: Mode
    mean: NamedVector | None
    """μ, subtracted from x: d_in entries."""
    scale: NamedVector | None
    """s, which divides x − μ: one entry or d_in entries. Unused with per_token."""
    norm: float | None = None
    """The mean ‖x‖ of Llama Scope: s = norm / √d_in."""
    stated: bool = True
    """Whether the checkpoint says how its input is normalised."""

    @property
    def vectors(self) -> dict[str, NamedVector]:
        """`mean` and `scale`, if present."""
        return {k: v for k, v in (("mean", self.mean), ("scale", self.scale)) if v is not None}

    def folded(self, d_in: int) -> tuple[Float[Tensor, " d_in"], Float[Tensor, " d_in"]]:
        """μ and s to fold into the weights; 0 and 1 unless the mode is dataset."""
        mean, scale = torch.zeros(d_in), torch.ones(d_in)
        if self.mode != "dataset":
            return mean, scale
        mean = mean if self.mean is None else self.mean[1]
        if self.norm is not None:
            return mean, scale * (self.norm / d_in**0.5)
        return mean, scale if self.scale is None else self.scale[1].expand(d_in)


def normalisation_of(checkpoint: Checkpoint) -> Normalisation:
    """The normalisation in the settings; without one, a mean or scale means dataset-level.

    Raises InputError for settings that are unknown or contradict each other or the tensors, and for
    a scale that is not positive.
    """
    mean, scale = _first(checkpoint, MEANS), _first(checkpoint, SCALES)
    for name, value in filter(None, (mean, scale)):
        if not bool(value.isfinite().all()) or (scale and name == scale[0] and value.min() <= 0):
            raise InputError(
                f"{checkpoint.file}: {name} must be finite, and positive if it is a scale"
            )
    norm = _dataset_norm(checkpoint)
    held = next((pair[0] for pair in (mean, scale) if pair), DATASET_NORM if norm else None)
    stated = _stated(checkpoint)
    averages = {name for name in checkpoint.settings if name.startswith(DATASET_NORM)}
    modes = [label.split(":")[0] for label in stated]
    read = (*READ, *averages, *modes, *([UNCLEAR] if stated else []))
    for key, value in changing(checkpoint.settings, read):
        raise InputError(
            f"{checkpoint.file} has {key}: {value}, which may change what the SAE reads: write "
            'what it does as "activation_mean", "activation_norm" (which divides the input) or '
            f'"normalize_activations" (none, per_token, layer_norm), and {ignoring(key)}'
        )
    mode = _mode(checkpoint, stated, held)
    return Normalisation(
        mode, mean, scale, norm if mode == "dataset" else None, bool(stated or held)
    )


def _stated(checkpoint: Checkpoint) -> dict[str, Mode]:
    """What each setting says that is done to the input. Raises InputError for an unknown word."""
    settings, found = checkpoint.settings, dict[str, Mode]()
    for key in MODE_KEYS:
        value = settings.get(key)
        numeric = is_number(value) and (key in (*SCALES, "norm") or truth(value) is None)
        if value is None or numeric:
            continue
        said = truth(value)
        word = (str(value) if said is None else str(said)).lower().replace("-", "_")
        if word not in MODES:
            known = ", ".join(name for name in MODES if name)
            raise InputError(
                f"{checkpoint.file} has {key}: {value}, which is unknown; known: {known}"
            )
        found[f"{key}: {value}"] = MODES[word]
    switched = {key: truth(settings.get(key)) for key in SWITCHES}
    off = {mode for key, mode in SWITCHES.items() if switched[key] is False}
    found |= {f"{key}: {settings[key]}": SWITCHES[key] for key, on in switched.items() if on}
    if off & {*found.values()}:
        found |= {f"{k}: {settings[k]}": "none" for k, on in switched.items() if on is False}
    return found


def _mode(checkpoint: Checkpoint, stated: dict[str, Mode], held: str | None) -> Mode:
    """The mode that all settings state, or else the one of what the file holds."""
    file = checkpoint.file
    if len({*stated.values()}) > 1:
        (first, mode), *rest = stated.items()
        other = next(label for label, own in rest if own != mode)
        raise InputError(
            f"{file} has {first} and {other}, which contradict each other: if the first is right, "
            f"write {ignoring(other.split(':')[0])}"
        )
    if not stated:
        return "dataset" if held else "none"
    setting, mode = next(iter(stated.items()))
    if mode == "dataset" and held is None:
        raise InputError(
            f"{file} has {setting}, but holds neither activation_mean nor activation_norm: write "
            '"activation_norm": NUMBER, which divides the input, into a config.json beside it'
        )
    if held is not None and mode not in ("dataset", "per_token") and held != DATASET_NORM:
        raise InputError(f"{file} has {setting}, but holds {held}: remove the wrong one")
    return mode


def _dataset_norm(checkpoint: Checkpoint) -> float | None:
    """The mean ‖x‖ at the input. Raises InputError if it is not positive, or if the output has
    another, as a transcoder's may."""
    found = {
        name[len(DATASET_NORM) :].lstrip("."): value
        for name, value in _numbers(checkpoint).items()
        if name.startswith(DATASET_NORM)
    }
    norms = set(found.values())
    if len(norms) > 1 or not all(0 < norm < float("inf") for norm in norms):
        listed = ", ".join(f"{name} {value}" for name, value in found.items())
        raise InputError(
            f"{checkpoint.file}: {DATASET_NORM} ({listed}) must be one positive number for input "
            "and output"
        )
    return next(iter(norms), None)


def _numbers(checkpoint: Checkpoint) -> dict[str, Any]:
    """Single numbers of the settings and of the tensors."""
    tensors = {n: v.item() for n, v in checkpoint.weights.items() if v.numel() == 1}
    return {n: v for n, v in (checkpoint.settings | tensors).items() if is_number(v)}


def _first(checkpoint: Checkpoint, names: tuple[str, ...]) -> NamedVector | None:
    """The vector or number under one of these names, if any. Raises InputError for two."""
    numbers = {n: torch.tensor(float(v)) for n, v in _numbers(checkpoint).items()}
    tensors = numbers | checkpoint.beside | checkpoint.weights
    known = [name for name in names if name in tensors]
    found = [(name, tensors[name].to(torch.float32).reshape(-1)) for name in known]
    if len(found) > 1:
        raise InputError(f"{checkpoint.file} holds both {found[0][0]} and {found[1][0]}: keep one")
    return found[0] if found else None
