"""Convert a checkpoint to a SAELens SAE.

A tensor's name gives its role (`NAMES`). The orientation of matrices follows from the sizes of
biases, from d_in and d_sae and from the model's width, and else from the name's convention
(nn.Linear or SAELens). Use of the decoder-side bias, unless `apply_b_dec_to_input` is set:

    pre_bias, bias     subtracted from the input and added to the output
    b_dec              the same, as in SAELens; only added if there is a threshold per feature
    decoder.bias       only added, as in nn.Linear; also subtracted if the SAE is TopK

A dataset-level mean μ and scale s, x̂ = (x − μ) / s, are folded as SAELens does: z keeps the
checkpoint's units, so thresholds, top-k and published activations stay valid, and W_dec becomes
s · W_dec, the change of x per unit of z.
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
    oriented,
    sizes_of,
)

MATRICES: dict[str, tuple[str, Axis | None]] = {
    "decoder.weight": ("decoder", "d_in"),
    "w_dec": ("decoder", "d_sae"),
    **dict.fromkeys(("decoder", "dec", "dictionary", "decoder_weight"), ("decoder", None)),
    "encoder.weight": ("encoder", "d_sae"),
    "w_enc": ("encoder", "d_in"),
    **dict.fromkeys(("encoder", "enc", "encoder_weight"), ("encoder", None)),
}
"""Name → role, and the axis that the rows have by convention."""
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
"""Names of training statistics, which do not affect what the SAE computes."""
CHANGING = re.compile("scal|norm|factor")
"""Names of single numbers that do affect it."""
UNSUPPORTED = ("signed", "skip_connection", "transcode")
"""Settings of models that are not ReLU, TopK or JumpReLU SAEs."""

Tensors = dict[str, tuple[str, Tensor]]
"""Role → name in the checkpoint and tensor in float32."""


@dataclass(frozen=True)
class CheckpointSAE:
    """The SAE in a checkpoint's units, its axes in SAELens's order."""

    W_dec: Float[Tensor, "d_sae d_in"]
    W_enc: Float[Tensor, "d_in d_sae"] | None
    b_enc: Float[Tensor, " d_sae"]
    before: Float[Tensor, " d_in"]
    """Subtracted from the normalised input."""
    after: Float[Tensor, " d_in"]
    """Added to the output; the same object as `before` if they are one parameter."""
    threshold: Float[Tensor, " d_sae"] | None
    kind: dict[str, Any]
    """`architecture`, and `k` for topk."""
    normalisation: Normalisation


def load_checkpoint(
    file: Path, *, device: str = "cpu", d_model: int | None = None, hook_name: str | None = None
) -> SAE[Any]:
    """Convert a checkpoint in another format to a SAELens SAE in float32.

    `d_model` and `hook_name` are used if the file leaves orientation or hook open. A decoder
    without an encoder gets a W_enc of NaN and metadata.decoder_only. Unit norm per token is
    recorded in metadata.unit_norm_per_token and .activation_mean, which codec.py reads. Raises
    InputError for a file that is unsafe, ambiguous, contradictory or an unsupported kind of SAE.
    """
    checkpoint = read_checkpoint(file)
    parts = _parts(checkpoint, d_model)
    metadata: dict[str, Any] = {"sae_lens_version": __version__}
    hooks = (str(checkpoint.settings.get(key, "")) for key in ("hook_name", "hook_point"))
    own_hook = next((name for name in hooks if re.match(r"blocks\.\d+\.|hook_", name)), None)
    metadata["hook_name"] = own_hook or hook_name
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
    """SAELens's parameters, with a dataset-level mean and scale folded in."""
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
    tensors, normalisation = _tensors_by_role(checkpoint), normalisation_of(checkpoint)
    matrices = {
        role: WeightMatrix(name, MATRICES[name][1], tensor)
        for role, (name, tensor) in tensors.items()
        if role in ("decoder", "encoder")
    }
    try:
        evidence = _evidence(tensors, normalisation, checkpoint.settings, d_model)
        sizes = sizes_of(list(matrices.values()), evidence)
        W_dec = oriented(matrices["decoder"], "d_sae", sizes)
        W_enc = oriented(matrices["encoder"], "d_in", sizes) if "encoder" in matrices else None
    except InputError as error:
        raise InputError(f"{checkpoint.file}: {error}") from None
    threshold = _threshold(tensors, sizes[1])
    kind: dict[str, Any] = {"architecture": "standard"}
    if W_enc is not None:
        kind = architecture_of(checkpoint, threshold is not None, sizes[1])
    subtracts = _subtracts(tensors, checkpoint.settings, kind["architecture"])
    biases = _biases(tensors, sizes, subtracts)
    return CheckpointSAE(W_dec, W_enc, *biases, threshold, kind, normalisation)


def _tensors_by_role(checkpoint: Checkpoint) -> Tensors:
    """Role → tensor. Raises InputError for a missing, duplicate, unknown or non-finite one."""
    found: Tensors = {}
    for name, tensor in checkpoint.weights.items():
        if (role := NAMES.get(name)) is None:
            _check_irrelevant(checkpoint, name, tensor)
            continue
        if role in found:
            raise InputError(f"{checkpoint.file} holds both {found[role][0]} and {name}: keep one")
        n_axes, kind = (2, "matrix") if name in MATRICES else (1, "vector")
        tensor = tensor.to(torch.float32)
        tensor = tensor if n_axes == 2 else tensor.reshape(-1)
        if tensor.ndim != n_axes or not bool(tensor.isfinite().all()):
            shape = list(tensor.shape)
            raise InputError(f"{checkpoint.file}: {name} {shape} must be a finite {kind}")
        found[role] = name, tensor
    if "decoder" not in found:
        names = ", ".join(list(checkpoint.weights)[:6])
        raise InputError(f"{checkpoint.file} has no decoder (like W_dec), only {names}")
    if other := [key for key in UNSUPPORTED if checkpoint.settings.get(key) is True]:
        raise InputError(f"{checkpoint.file} has {other[0]}: true, which SAELens does not support")
    return found


def _check_irrelevant(checkpoint: Checkpoint, name: str, tensor: Tensor) -> None:
    """Raise InputError for an unknown tensor that may affect what the SAE computes."""
    known = name in (*MEANS, *SCALES) or name in SIZES or RECORDS.search(name)
    single = tensor.ndim == 0 and not CHANGING.search(name)
    ones = name == "scaling_factor" and bool((tensor == 1).all())
    if not (known or single or ones):
        raise InputError(
            f"{checkpoint.file} holds {name} {list(tensor.shape)}, which no ReLU, TopK or JumpReLU "
            "SAE has: remove it if it does not affect what the SAE computes"
        )


def _evidence(
    tensors: Tensors, normalisation: Normalisation, settings: dict[str, Any], d_model: int | None
) -> list[ShapeEvidence]:
    """What biases, settings and the model tell of the lengths of axes."""
    vectors = {role: pair for role, pair in tensors.items() if role in LENGTHS}
    if vectors.get("before", ("",))[0] == "bias" and "b_enc" not in vectors:
        vectors.pop("before")  # may belong to encoder or decoder
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


def _threshold(tensors: Tensors, d_sae: int) -> Float[Tensor, " d_sae"] | None:
    """A threshold per feature. dictionary_learning stores a single negative number for none."""
    if "threshold" not in tensors:
        return None
    name, value = tensors["threshold"]
    value = value.exp() if name == "log_threshold" else value
    return None if len(value) == 1 and float(value) < 0 else value.expand(d_sae)


def _subtracts(tensors: Tensors, settings: dict[str, Any], architecture: str) -> bool:
    """Whether the output bias is also subtracted from the input."""
    if isinstance(stated := settings.get("apply_b_dec_to_input"), bool):
        return stated
    if tensors.get("after", ("",))[0] == "b_dec":
        return not ("threshold" in tensors and len(tensors["threshold"][1]) > 1)
    return "after" not in tensors or architecture == "topk"


def _biases(tensors: Tensors, sizes: LayerSizes, subtracts: bool) -> tuple[Tensor, Tensor, Tensor]:
    """b_enc, the bias subtracted from the input, and the bias added to the output."""
    d_in, d_sae = sizes
    vectors = {role: tensor for role, (_, tensor) in tensors.items()}
    if "b_enc" not in vectors and len(vectors.get("before", ())) not in (0, d_in):
        vectors["b_enc"] = vectors.pop("before")
    b_enc, zeros = vectors.get("b_enc", torch.zeros(d_sae)), torch.zeros(d_in)
    if "before" in vectors and "after" in vectors:
        return b_enc, vectors["before"], vectors["after"]
    single = vectors.get("after", vectors.get("before", zeros))
    return b_enc, single if subtracts else zeros, single
