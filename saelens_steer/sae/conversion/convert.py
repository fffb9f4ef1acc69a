"""Converting a checkpoint to an SAE of SAELens.

A key's name gives its role (`NAMES`); which axis is which follows the name's convention
(nn.Linear or SAELens), overruled by the sizes of biases, by d_in and d_sae, and by the model's
width. The bias on the decoder's side, unless the settings have `apply_b_dec_to_input`:

    pre_bias, bias     subtracted from the input and added to the output
    b_dec              the same, as in SAELens; but only added if each feature has a threshold
    decoder.bias       only added, as by nn.Linear; but subtracted too if there is a k (TopK)

A dataset-level mean μ and scale s, x̂ = (x − μ) / s, are folded so that z stays in the units of the
checkpoint, as in SAELens's own folding: thresholds, the k largest and published activations stay
valid, and W_dec becomes s · W_dec, the change of x itself for each unit of z.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from sae_lens import SAE, __version__
from torch import Tensor

from saelens_steer.errors import InputError
from saelens_steer.sae.codec import RUN_TIME
from saelens_steer.sae.conversion.checkpoint import Checkpoint, read_checkpoint
from saelens_steer.sae.conversion.settings import (
    MEANS,
    SCALES,
    Normalisation,
    architecture_of,
    normalisation_of,
)
from saelens_steer.sae.conversion.shapes import (
    Axis,
    LayerSizes,
    ShapeEvidence,
    WeightMatrix,
    sizes_of,
    turned,
)

MATRICES: dict[str, tuple[str, Axis | None]] = {
    "decoder.weight": ("decoder", "d_in"),
    "w_dec": ("decoder", "d_sae"),
    **dict.fromkeys(("decoder", "dec", "dictionary", "decoder_weight"), ("decoder", None)),
    "encoder.weight": ("encoder", "d_sae"),
    "w_enc": ("encoder", "d_in"),
    **dict.fromkeys(("encoder", "enc", "encoder_weight"), ("encoder", None)),
}
"""Role, and the axis of the rows by convention."""
NAMES = {
    **{name: role for name, (role, _) in MATRICES.items()},
    **dict.fromkeys(("encoder.bias", "b_enc", "latent_bias", "encoder_bias"), "b_enc"),
    **dict.fromkeys(("b_dec", "decoder.bias", "decoder_bias"), "after"),
    **dict.fromkeys(("pre_bias", "bias"), "before"),
    **dict.fromkeys(("threshold", "log_threshold"), "threshold"),
}
SIZES: dict[str, Axis] = {
    **dict.fromkeys(("d_in", "activation_dim", "act_size", "input_dim", "d_model"), "d_in"),
    **dict.fromkeys(("d_sae", "dict_size", "num_latents", "n_latents", "n_features"), "d_sae"),
}
LENGTHS: dict[str, Axis] = {
    **dict.fromkeys(("b_enc", "threshold"), "d_sae"),
    **dict.fromkeys(("before", "after", "mean", "scale"), "d_in"),
}
RECORDS = re.compile(r"step|fired|active|dead|count|freq|sparsity|nonzero|epoch|(^|[._])(n|num)_")
"""Names of training's own records, which do not change what the SAE computes."""
CHANGING = re.compile("scal|norm|factor")
"""Names of single numbers that do."""
OTHER_KINDS = ("signed", "skip_connection", "transcode")
"""Switches of SAEs that are no ReLU, TopK or JumpReLU SAE."""

Held = dict[str, tuple[str, Tensor]]
"""Role → the name in the checkpoint, and the tensor in float32."""


@dataclass(frozen=True)
class CheckpointSAE:
    """A checkpoint's SAE with axes in SAELens's order, in the checkpoint's units."""

    W_dec: Float[Tensor, "d_sae d_in"]
    W_enc: Float[Tensor, "d_in d_sae"] | None
    b_enc: Float[Tensor, " d_sae"]
    before: Float[Tensor, " d_in"]
    """Subtracted from the input after normalisation."""
    after: Float[Tensor, " d_in"]
    """Added to the output; the same object as `before` if both are one parameter."""
    threshold: Float[Tensor, " d_sae"] | None
    kind: dict[str, Any]
    """architecture, and k for topk."""
    normalisation: Normalisation


def load_checkpoint(
    file: Path, *, device: str = "cpu", d_model: int | None = None, hook_name: str | None = None
) -> SAE[Any]:
    """An SAE of SAELens, float32, from a checkpoint that is not in SAELens's format.

    `d_model` decides the orientation if the file does not, `hook_name` is used if the file names
    none. A decoder alone gives a W_enc of NaN and metadata.decoder_only; unit norm per token
    is recorded for codec.py in metadata.unit_norm_per_token and .activation_mean. Raises InputError
    for what cannot be read safely, is ambiguous, contradicts itself or is another kind of SAE.
    """
    checkpoint = read_checkpoint(file)
    parts = _parts(checkpoint, d_model)
    metadata: dict[str, Any] = {"sae_lens_version": __version__}
    said = (str(checkpoint.settings.get(key, "")) for key in ("hook_name", "hook_point"))
    stated = next((name for name in said if re.match(r"blocks\.\d+\.|hook_", name)), None)
    metadata["hook_name"] = stated or hook_name
    if parts.W_enc is None:
        metadata["decoder_only"] = True
    norm = parts.normalisation
    if norm.mode == "per_token":
        mean = None if norm.mean is None else norm.mean[1].tolist()
        metadata |= {"unit_norm_per_token": True, "activation_mean": mean}
    d_sae, d_in = parts.W_dec.shape

    def convert(
        path: str | Path,  # noqa: ARG001 (read above)
        device: str,
        cfg_overrides: dict[str, Any] | None,  # noqa: ARG001
    ) -> tuple[dict[str, Any], dict[str, Tensor]]:
        config = {
            "d_in": d_in,
            "d_sae": d_sae,
            "dtype": "float32",
            "device": device,
            "apply_b_dec_to_input": parts.before is parts.after,
            "normalize_activations": norm.mode if norm.mode in RUN_TIME else "none",
            "metadata": metadata,
            **parts.kind,
        }
        return config, _state(parts)

    return SAE.load_from_disk(str(file), device=device, converter=convert)


def _state(parts: CheckpointSAE) -> dict[str, Tensor]:
    """SAELens's parameters, a dataset-level mean and scale folded in."""
    d_sae, d_in = parts.W_dec.shape
    mean, scale = parts.normalisation.folded(d_in)
    W_enc = torch.full((d_in, d_sae), torch.nan) if parts.W_enc is None else parts.W_enc
    state = {
        "W_enc": W_enc / scale[:, None],
        "W_dec": parts.W_dec * scale,
        "b_enc": parts.b_enc.clone(),
        "b_dec": parts.after * scale + mean,
    }
    if parts.W_enc is not None and parts.before is not parts.after:
        state["b_enc"] -= (mean / scale + parts.before) @ parts.W_enc
    if parts.kind["architecture"] == "jumprelu":
        assert parts.threshold is not None
        state["threshold"] = parts.threshold.clone()
    return {name: tensor.contiguous() for name, tensor in state.items()}


def _parts(checkpoint: Checkpoint, d_model: int | None) -> CheckpointSAE:
    held, normalisation = _held(checkpoint), normalisation_of(checkpoint)
    matrices = {
        role: WeightMatrix(name, MATRICES[name][1], tensor)
        for role, (name, tensor) in held.items()
        if role in ("decoder", "encoder")
    }
    try:
        known = _evidence(held, normalisation, checkpoint.settings, d_model)
        sizes = sizes_of(list(matrices.values()), known)
        W_dec = turned(matrices["decoder"], "d_sae", sizes)
        W_enc = turned(matrices["encoder"], "d_in", sizes) if "encoder" in matrices else None
    except InputError as error:
        raise InputError(f"{checkpoint.file}: {error}") from None
    threshold = _threshold(held, sizes[1])
    kind: dict[str, Any] = {"architecture": "standard"}
    if W_enc is not None:
        kind = architecture_of(checkpoint, threshold is not None, sizes[1])
    biases = _biases(held, sizes, _subtracts(held, checkpoint.settings, kind["architecture"]))
    return CheckpointSAE(W_dec, W_enc, *biases, threshold, kind, normalisation)


def _held(checkpoint: Checkpoint) -> Held:
    """The tensors by role. InputError if any is missing, double, not finite or unknown."""
    held: Held = {}
    for name, tensor in checkpoint.weights.items():
        if (role := NAMES.get(name)) is None:
            _check_needless(checkpoint, name, tensor)
            continue
        if role in held:
            raise InputError(f"{checkpoint.file} holds both {held[role][0]} and {name}: keep one")
        wanted = 2 if name in MATRICES else 1
        tensor = tensor.to(torch.float32)
        tensor = tensor if wanted == 2 else tensor.reshape(-1)
        if tensor.ndim != wanted or not bool(tensor.isfinite().all()):
            shape = list(tensor.shape)
            word = "matrix" if wanted == 2 else "vector"
            raise InputError(f"{checkpoint.file}: {name} {shape} is no finite {word}")
        held[role] = name, tensor
    if "decoder" not in held:
        names = ", ".join(list(checkpoint.weights)[:6])
        raise InputError(f"{checkpoint.file} has no decoder such as W_dec, only {names}")
    if other := [key for key in OTHER_KINDS if checkpoint.settings.get(key) is True]:
        raise InputError(f"{checkpoint.file} says {other[0]}: true, which no SAE of SAELens can be")
    return held


def _check_needless(checkpoint: Checkpoint, name: str, tensor: Tensor) -> None:
    """Raise InputError for something unknown that may change what the SAE computes."""
    known = name in (*MEANS, *SCALES) or name in SIZES or RECORDS.search(name)
    single = tensor.ndim == 0 and not CHANGING.search(name)
    ones = name == "scaling_factor" and bool((tensor == 1).all())
    if not (known or single or ones):
        raise InputError(
            f"{checkpoint.file} holds {name} {list(tensor.shape)}, which no ReLU, TopK or JumpReLU "
            "SAE has: take it out if it does not change what the SAE computes"
        )


def _evidence(
    held: Held, normalisation: Normalisation, settings: dict[str, Any], d_model: int | None
) -> list[ShapeEvidence]:
    """The lengths of axes as biases, settings and the model give them."""
    vectors = {role: pair for role, pair in held.items() if role in LENGTHS}
    if vectors.get("before", ("",))[0] == "bias" and "b_enc" not in vectors:
        vectors.pop("before")  # may be either side's
    vectors |= normalisation.vectors
    found = [
        ShapeEvidence(name, LENGTHS[role], len(vector))
        for role, (name, vector) in vectors.items()
        if len(vector) > 1 or role not in ("threshold", "scale")
    ]
    for key, axis in SIZES.items():
        size = settings.get(key)
        if isinstance(size, int) and not isinstance(size, bool) and size > 0:
            found.append(ShapeEvidence(key, axis, size))
    return found + ([] if d_model is None else [ShapeEvidence("the model", "d_in", d_model)])


def _threshold(held: Held, d_sae: int) -> Float[Tensor, " d_sae"] | None:
    """One for each feature; a single one below 0 is how dictionary_learning says there is none."""
    if "threshold" not in held:
        return None
    name, value = held["threshold"]
    value = value.exp() if name == "log_threshold" else value
    return None if len(value) == 1 and float(value) < 0 else value.expand(d_sae)


def _subtracts(held: Held, settings: dict[str, Any], architecture: str) -> bool:
    """Whether the bias that is added to the output is subtracted from the input too."""
    if isinstance(stated := settings.get("apply_b_dec_to_input"), bool):
        return stated
    if held.get("after", ("",))[0] == "b_dec":
        return not ("threshold" in held and len(held["threshold"][1]) > 1)
    return "after" not in held or architecture == "topk"


def _biases(held: Held, sizes: LayerSizes, subtracts: bool) -> tuple[Tensor, Tensor, Tensor]:
    """b_enc, the bias subtracted from the input, and the bias added to the output."""
    d_in, d_sae = sizes
    vectors = {role: tensor for role, (_, tensor) in held.items()}
    if "b_enc" not in vectors and len(vectors.get("before", ())) not in (0, d_in):
        vectors["b_enc"] = vectors.pop("before")
    b_enc, nothing = vectors.get("b_enc", torch.zeros(d_sae)), torch.zeros(d_in)
    if "before" in vectors and "after" in vectors:
        return b_enc, vectors["before"], vectors["after"]
    single = vectors.get("after", vectors.get("before", nothing))
    return b_enc, single if subtracts else nothing, single
