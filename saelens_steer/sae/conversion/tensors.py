"""The role of each tensor of a checkpoint, by its name."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from saelens_steer.errors import InputError
from saelens_steer.sae.conversion.checkpoint import Checkpoint
from saelens_steer.sae.conversion.normalisation import DATASET_NORM, MEANS, SCALES, Normalisation
from saelens_steer.sae.conversion.shapes import Axis, ShapeEvidence
from saelens_steer.sae.conversion.unread import ignoring

MATRICES: dict[str, tuple[str, Axis | None]] = {
    **dict.fromkeys(("decoder.weight", "decoder_linear.weight"), ("decoder", "d_in")),
    **dict.fromkeys(("w_dec", "decoder.linear.weight"), ("decoder", "d_sae")),
    **dict.fromkeys(("decoder", "dec", "dictionary", "decoder_weight"), ("decoder", None)),
    **dict.fromkeys(("encoder.weight", "encoder_linear.weight"), ("encoder", "d_sae")),
    "w_enc": ("encoder", "d_in"),
    **dict.fromkeys(("encoder", "enc", "encoder_weight"), ("encoder", None)),
}
"""Name → role, and the axis that the rows have by convention."""
ENCODER_BIASES = ("encoder.bias", "encoder_linear.bias", "b_enc", "latent_bias", "encoder_bias")
DECODER_BIASES = ("b_dec", "decoder.bias", "decoder_linear.bias", "decoder_bias")
GATES = {"b_gate": "b_gate", "gate_bias": "b_gate", "b_mag": "b_mag", "mag_bias": "b_mag"}
NAMES = {
    **{name: role for name, (role, _) in MATRICES.items()},
    **dict.fromkeys(ENCODER_BIASES, "b_enc"),
    **dict.fromkeys(DECODER_BIASES, "after"),
    **dict.fromkeys(("pre_bias", "bias"), "before"),
    **dict.fromkeys(("threshold", "log_threshold", "log_jumprelu_threshold"), "threshold"),
    **GATES,
    "r_mag": "r_mag",
}
SIZES: dict[str, Axis] = {
    **dict.fromkeys(("d_in", "activation_dim", "act_size", "input_dim", "d_model"), "d_in"),
    **dict.fromkeys(("d_sae", "dict_size", "num_latents", "n_latents", "n_features"), "d_sae"),
}
LENGTHS: dict[str, Axis] = {
    **dict.fromkeys(("b_enc", "threshold", "b_gate", "b_mag", "r_mag"), "d_sae"),
    **dict.fromkeys(("before", "after", "mean", "scale"), "d_in"),
}
RECORDS = frozenset(
    (
        *("n_forward_passes_since_fired", "num_batches_not_active", "steps_since_active"),
        *("num_tokens_since_fired", "tokens_since_fired", "stats_last_nonzero"),
        *("latents_activation_frequency", "latents_mean_square", "activation_frequency"),
        *("act_freq_scores", "n_frac_active_tokens", "feature_sparsity", "log_feature_sparsity"),
        *("sparsity", "active_features", "dead_features", "step", "epoch"),
    )
)
"""Training statistics, which do not affect what the SAE computes."""
COUNTS = re.compile(r"step|fired|active|dead|count|freq|nonzero|epoch|group_|(^|[._])(n|num)_")
"""The same of tensors of whole numbers, which cannot be parameters."""
NUMBERS = ("k", "topk", "top_k", "jump_relu_threshold")
"""Numbers that are read like settings."""
OTHERS = (
    (re.compile(r"skip"), "a transcoder's skip connection"),
    (re.compile(r"^attn_layers\."), "a temporal SAE's attention"),
    (re.compile(r"^(w|b)_(enc|dec)_\d+$"), "one layer of a cross-layer transcoder"),
    (re.compile(r"encoder_glu|_glu"), "a gated linear encoder"),
)
"""Names of tensors of models that are not SAEs of one hook → what they are."""

Tensors = dict[str, tuple[str, Tensor]]
"""Role → name in the checkpoint and tensor in float32."""


def tensors_by_role(checkpoint: Checkpoint) -> Tensors:
    """Role → tensor. Raises InputError for a missing, duplicate, unknown or non-finite one."""
    found: Tensors = {}
    for name in checkpoint.weights:
        if other := next((what for pattern, what in OTHERS if pattern.search(name)), None):
            raise InputError(f"{checkpoint.file} holds {name}, {other}: it is not an ordinary SAE")
    for name, tensor in checkpoint.weights.items():
        if (role := NAMES.get(name)) is None:
            _check_irrelevant(checkpoint, name, tensor)
            continue
        if role in found:
            raise InputError(f"{checkpoint.file} holds both {found[role][0]} and {name}: keep one")
        found[role] = name, _shaped(checkpoint, name, tensor)
    if "decoder" not in found:
        names = ", ".join(list(checkpoint.weights)[:6])
        raise InputError(f"{checkpoint.file} has no decoder (like W_dec), only {names}")
    return found


def _shaped(checkpoint: Checkpoint, name: str, tensor: Tensor) -> Tensor:
    """The tensor in float32. Raises InputError unless it is finite and a matrix or a vector."""
    n_axes, kind = (2, "matrix") if name in MATRICES else (1, "vector")
    if tensor.ndim == 3 and name in MATRICES:
        raise InputError(
            f"{checkpoint.file}: {name} {list(tensor.shape)} must be a finite matrix; with three "
            "axes it is a cross-layer transcoder or a crosscoder, which cannot be used at one hook"
        )
    tensor = tensor.to(torch.float32)
    tensor = tensor if n_axes == 2 else tensor.reshape(-1)
    if tensor.ndim != n_axes or not bool(tensor.isfinite().all()):
        raise InputError(f"{checkpoint.file}: {name} {list(tensor.shape)} must be a finite {kind}")
    return tensor


def _check_irrelevant(checkpoint: Checkpoint, name: str, tensor: Tensor) -> None:
    """Raise InputError for an unknown tensor that may affect what the SAE computes."""
    known = name in (*MEANS, *SCALES, *SIZES, *NUMBERS, *RECORDS) or name.startswith(DATASET_NORM)
    counts = not tensor.is_floating_point() and COUNTS.search(name)
    ones = name == "scaling_factor" and bool((tensor == 1).all())
    if not (known or counts or ones):
        raise InputError(
            f"{checkpoint.file} holds {name} {list(tensor.shape)}, which no ReLU, TopK, JumpReLU "
            "or gated SAE has: if it does not affect what the SAE computes, write "
            f"{ignoring(name)}"
        )


def evidence_of(
    checkpoint: Checkpoint,
    tensors: Tensors,
    normalisation: Normalisation,
    more: Sequence[ShapeEvidence],
) -> list[ShapeEvidence]:
    """The lengths of axes that biases, settings and `more` imply."""
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
        size = checkpoint.settings.get(key)
        if isinstance(size, int) and not isinstance(size, bool) and size > 0:
            found.append(ShapeEvidence(key, axis, size))
    return [*found, *more]
