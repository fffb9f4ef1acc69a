"""How a checkpoint's SAE wants its input: as it is, scaled as a whole, or token by token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from saelens_steer.errors import InputError
from saelens_steer.sae.checkpoint import Checkpoint

Mode = Literal["none", "dataset", "per_token", "layer_norm", "constant_norm_rescale"]

MEANS = ("activation_mean", "mean", "act_mean", "input_mean")
SCALES = (
    *("activation_norm", "norm", "act_norm", "scale", "activation_scale"),
    *("activation_std", "act_std", "input_std", "std"),
)
SWITCHES = ("unit_norm_per_token", "per_token_norm", "per_token_unit_norm", "unit_norm")
MODE_KEYS = (
    *("normalize_activations", "activation_normalization", "normalize", "normalization"),
    *("normalize_inputs", "normalize_input", "activation_norm", "norm"),
)
MODES: dict[str, Mode] = {
    **dict.fromkeys(("none", "no", "false", "null", ""), "none"),
    **dict.fromkeys(
        ("unit", "unit_norm", "per_token", "per_token_norm", "per_token_unit_norm", "token"),
        "per_token",
    ),
    **dict.fromkeys(("dataset", "mean_norm", "global", "true"), "dataset"),
    "expected_average_only_in": "dataset",
    "layer_norm": "layer_norm",
    "constant_norm_rescale": "constant_norm_rescale",
}


Named = tuple[str, Tensor] | None
"""What the checkpoint calls it, and a vector in float32."""


@dataclass(frozen=True)
class Normalisation:
    """What happens to x before the SAE, and is undone after it."""

    mode: Mode
    mean: Named
    """μ, subtracted from x: d_in entries."""
    scale: Named
    """What x − μ is divided by: one entry, or d_in. Not used where the norm is the token's own."""

    @property
    def per_token(self) -> bool:
        return self.mode == "per_token"

    @property
    def run_time(self) -> str | None:
        """SAELens's own name, where SAELens does it."""
        return self.mode if self.mode in ("layer_norm", "constant_norm_rescale") else None

    @property
    def mean_list(self) -> list[float] | None:
        """μ for metadata."""
        return None if self.mean is None else self.mean[1].tolist()

    @property
    def vectors(self) -> dict[str, tuple[str, Tensor]]:
        """`mean` and `scale`, where they are there."""
        return {k: v for k, v in (("mean", self.mean), ("scale", self.scale)) if v is not None}

    def folded(self, d_in: int) -> tuple[Float[Tensor, " d_in"], Float[Tensor, " d_in"]]:
        """μ and s of the dataset, for the weights; 0 and 1 where it is not dataset-level."""
        mean, scale = torch.zeros(d_in), torch.ones(d_in)
        if self.mode != "dataset":
            return mean, scale
        mean = mean if self.mean is None else self.mean[1]
        return mean, scale if self.scale is None else self.scale[1].expand(d_in)


def normalisation_of(checkpoint: Checkpoint) -> Normalisation:
    """What the settings say; a mean or a scale without any such setting is the dataset's.

    Raises InputError for a setting that is unknown or contradicts what is there, and for a scale
    that is not above 0.
    """
    mean, scale = _first(checkpoint, MEANS), _first(checkpoint, SCALES)
    for name, value in filter(None, (mean, scale)):
        if not bool(value.isfinite().all()) or (scale and name == scale[0] and value.min() <= 0):
            raise InputError(f"{checkpoint.file}: {name} must be finite, and a norm above 0")
    return Normalisation(_mode(checkpoint, mean or scale), mean, scale)


def _mode(checkpoint: Checkpoint, held: Named) -> Mode:
    settings = checkpoint.settings
    if any(settings.get(key) in (True, "true", "True") for key in SWITCHES):
        return "per_token"
    key = next((k for k in MODE_KEYS if isinstance(settings.get(k), str | bool)), None)
    if key is None:
        return "dataset" if held else "none"
    said, mode = f"{checkpoint.file} says {key}: {settings[key]}", MODES.get(_word(settings[key]))
    if mode is None:
        known = ", ".join(name for name in MODES if name)
        raise InputError(f"{said}, which is not known; known are {known}")
    if mode == "dataset" and not held:
        raise InputError(f"{said}, but holds neither activation_mean nor activation_norm")
    if held and mode not in ("dataset", "per_token"):
        raise InputError(f"{said}, but holds {held[0]}: take out the one that is not meant")
    return mode


def _word(value: str | bool) -> str:
    return str(value).lower().replace("-", "_")


def _first(checkpoint: Checkpoint, names: tuple[str, ...]) -> Named:
    """The one of these names that is there. Raises InputError for two."""
    both = checkpoint.beside | checkpoint.weights
    found = [(name, both[name].to(torch.float32).reshape(-1)) for name in names if name in both]
    if len(found) > 1:
        raise InputError(f"{checkpoint.file} holds both {found[0][0]} and {found[1][0]}: keep one")
    return found[0] if found else None
