"""The architecture and input normalisation that a checkpoint's settings describe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from saelens_steer.errors import InputError
from saelens_steer.sae.conversion.checkpoint import Checkpoint

STATED_BY = (
    *("architecture", "dict_class", "sae_type", "sae_class"),
    *("activation", "activation_fn", "activation_fn_str"),
)
MEANT = (
    ("batchtopk", "jumprelu"),
    ("jumprelu", "jumprelu"),
    ("topk", "topk"),
    ("gated", "gated"),
    ("relu", "standard"),
    ("standard", "standard"),
)
"""What a setting of STATED_BY may contain, and its meaning, the first match deciding:
`activation_fn: topk` counts for more than `architecture: standard`. A BatchTopK SAE is run with its
threshold."""
NEEDS = {"topk": "k", "jumprelu": "threshold"}


def architecture_of(checkpoint: Checkpoint, has_threshold: bool, d_sae: int) -> dict[str, Any]:
    """`architecture`, and `k` for topk: as the settings name it, or else from k and threshold.

    Raises InputError for another architecture, one whose k or threshold is missing, and one that
    may be either TopK or JumpReLU.
    """
    file, settings = checkpoint.file, checkpoint.settings
    k = next((settings[name] for name in ("k", "topk", "top_k") if name in settings), None)
    there = {"topk": k is not None, "jumprelu": has_threshold}
    stated = " ".join(str(settings.get(key, "")) for key in STATED_BY).lower()
    stated = stated.replace("_", "").replace("-", "")
    kind = next((kind for part, kind in MEANT if part in stated), None)
    if kind is None and all(there.values()):
        raise InputError(
            f"{file} holds both k and threshold: say which counts with "
            '{"architecture": "topk"} or {"architecture": "jumprelu"} in a config.json beside it'
        )
    kind = kind or next((name for name, held in there.items() if held), "standard")
    if kind == "standard" and has_threshold:
        kind = "jumprelu"
    if kind == "gated":
        raise InputError(f"{file} is a gated SAE: only ReLU, TopK and JumpReLU are converted")
    if not there.get(kind, True):
        raise InputError(f"{file} says it is {kind}, but holds no {NEEDS[kind]}")
    if kind != "topk":
        return {"architecture": kind}
    if isinstance(k, bool) or not isinstance(k, int | float) or k != int(k) or not 1 <= k <= d_sae:
        raise InputError(f"{file}: k must be a whole number from 1 to {d_sae}, not {k!r}")
    return {"architecture": kind, "k": int(k)}


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
"""The name in the checkpoint, and the vector in float32."""


@dataclass(frozen=True)
class Normalisation:
    """The normalisation of x before the SAE, undone after it."""

    mode: Mode
    mean: Named
    """μ, subtracted from x: d_in entries."""
    scale: Named
    """s, which x − μ is divided by: one entry, or d_in. Unused with per_token."""

    @property
    def vectors(self) -> dict[str, tuple[str, Tensor]]:
        """Those of `mean` and `scale` that the checkpoint holds."""
        return {k: v for k, v in (("mean", self.mean), ("scale", self.scale)) if v is not None}

    def folded(self, d_in: int) -> tuple[Float[Tensor, " d_in"], Float[Tensor, " d_in"]]:
        """μ and s to fold into the weights; 0 and 1 unless the mode is dataset."""
        mean, scale = torch.zeros(d_in), torch.ones(d_in)
        if self.mode != "dataset":
            return mean, scale
        mean = mean if self.mean is None else self.mean[1]
        return mean, scale if self.scale is None else self.scale[1].expand(d_in)


def normalisation_of(checkpoint: Checkpoint) -> Normalisation:
    """As the settings name it; a mean or a scale without any such setting is the dataset's.

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
    word = str(settings[key]).lower().replace("-", "_")
    said, mode = f"{checkpoint.file} says {key}: {settings[key]}", MODES.get(word)
    if mode is None:
        known = ", ".join(name for name in MODES if name)
        raise InputError(f"{said}, which is not known; known are {known}")
    if mode == "dataset" and not held:
        raise InputError(f"{said}, but holds neither activation_mean nor activation_norm")
    if held and mode not in ("dataset", "per_token"):
        raise InputError(f"{said}, but holds {held[0]}: take out the one that is not meant")
    return mode


def _first(checkpoint: Checkpoint, names: tuple[str, ...]) -> Named:
    """The one of these names that is there. Raises InputError for two."""
    both = checkpoint.beside | checkpoint.weights
    found = [(name, both[name].to(torch.float32).reshape(-1)) for name in names if name in both]
    if len(found) > 1:
        raise InputError(f"{checkpoint.file} holds both {found[0][0]} and {found[1][0]}: keep one")
    return found[0] if found else None
