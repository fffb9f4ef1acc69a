"""Architecture and input normalisation of a checkpoint, from its settings and tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from saelens_steer.errors import InputError
from saelens_steer.sae.conversion.checkpoint import Checkpoint

ARCHITECTURE_KEYS = (
    *("architecture", "dict_class", "sae_type", "sae_class"),
    *("activation", "activation_fn", "activation_fn_str"),
)
ARCHITECTURE_NAMES = (
    ("batchtopk", "jumprelu"),
    ("jumprelu", "jumprelu"),
    ("topk", "topk"),
    ("gated", "gated"),
    ("relu", "standard"),
    ("standard", "standard"),
)
"""Text in a setting of ARCHITECTURE_KEYS → architecture. The first match wins, so that
`activation_fn: topk` overrides `architecture: standard`. BatchTopK SAEs use their threshold."""
NEEDS = {"topk": "k", "jumprelu": "threshold"}


def architecture_of(checkpoint: Checkpoint, has_threshold: bool, d_sae: int) -> dict[str, Any]:
    """`architecture`, and `k` for topk, from the settings or else from k and threshold.

    Raises InputError for an unsupported architecture, a missing k or threshold, and an SAE that may
    be either TopK or JumpReLU.
    """
    file, settings = checkpoint.file, checkpoint.settings
    k = next((settings[name] for name in ("k", "topk", "top_k") if name in settings), None)
    present = {"topk": k is not None, "jumprelu": has_threshold}
    stated = " ".join(str(settings.get(key, "")) for key in ARCHITECTURE_KEYS).lower()
    stated = stated.replace("_", "").replace("-", "")
    kind = next((kind for part, kind in ARCHITECTURE_NAMES if part in stated), None)
    if kind is None and all(present.values()):
        raise InputError(
            f"{file} holds both k and threshold: choose one with "
            '{"architecture": "topk"} or {"architecture": "jumprelu"} in a config.json beside it'
        )
    kind = kind or next((name for name, held in present.items() if held), "standard")
    if kind == "standard" and has_threshold:
        kind = "jumprelu"
    if kind == "gated":
        raise InputError(f"{file} is a gated SAE: only ReLU, TopK and JumpReLU can be converted")
    if not present.get(kind, True):
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
        return mean, scale if self.scale is None else self.scale[1].expand(d_in)


def normalisation_of(checkpoint: Checkpoint) -> Normalisation:
    """The normalisation in the settings; without one, a mean or scale means dataset-level.

    Raises InputError for a setting that is unknown or contradicts the tensors, and for a scale
    that is not positive.
    """
    mean, scale = _first(checkpoint, MEANS), _first(checkpoint, SCALES)
    for name, value in filter(None, (mean, scale)):
        if not bool(value.isfinite().all()) or (scale and name == scale[0] and value.min() <= 0):
            raise InputError(f"{checkpoint.file}: {name} must be finite, and a scale positive")
    return Normalisation(_mode(checkpoint, mean or scale), mean, scale)


def _mode(checkpoint: Checkpoint, held: NamedVector | None) -> Mode:
    settings = checkpoint.settings
    if any(settings.get(key) in (True, "true", "True") for key in SWITCHES):
        return "per_token"
    key = next((k for k in MODE_KEYS if isinstance(settings.get(k), str | bool)), None)
    if key is None:
        return "dataset" if held else "none"
    word = str(settings[key]).lower().replace("-", "_")
    setting, mode = f"{checkpoint.file} has {key}: {settings[key]}", MODES.get(word)
    if mode is None:
        known = ", ".join(name for name in MODES if name)
        raise InputError(f"{setting}, which is unknown; known: {known}")
    if mode == "dataset" and not held:
        raise InputError(f"{setting}, but holds neither activation_mean nor activation_norm")
    if held and mode not in ("dataset", "per_token"):
        raise InputError(f"{setting}, but holds {held[0]}: remove the wrong one")
    return mode


def _first(checkpoint: Checkpoint, names: tuple[str, ...]) -> NamedVector | None:
    """The vector under one of these names, if any. Raises InputError for two."""
    tensors = checkpoint.beside | checkpoint.weights
    known = [name for name in names if name in tensors]
    found = [(name, tensors[name].to(torch.float32).reshape(-1)) for name in known]
    if len(found) > 1:
        raise InputError(f"{checkpoint.file} holds both {found[0][0]} and {found[1][0]}: keep one")
    return found[0] if found else None
