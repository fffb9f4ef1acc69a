"""Convert a checkpoint to a SAELens SAE.

A tensor's name gives its role (`tensors.py`). The orientation of matrices follows from the sizes of
biases, from d_in and d_sae and from the model's width, and else from the name's convention
(`shapes.py`). `kinds.py` decides architecture and use of biases, `normalisation.py` what is done to
the input, `hooks.py` where it is read.

A dataset-level mean μ and scale s, x̂ = (x − μ) / s, are folded as SAELens does: z keeps the
checkpoint's units, so thresholds, top-k and published activations stay valid, and W_dec becomes
s · W_dec, the change of x per unit of z. Decoder norms that the encoder counts in
(`rescale_acts_by_decoder_norm`, `sparsity_include_decoder_norm`) are folded before.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from sae_lens import SAE, __version__
from torch import Tensor

from saelens_steer.errors import InputError
from saelens_steer.progress import say
from saelens_steer.sae.centring import BIASES
from saelens_steer.sae.codec import RUN_TIME
from saelens_steer.sae.conversion.checkpoint import Checkpoint, read_checkpoint, truth
from saelens_steer.sae.conversion.hooks import Hooks, hooks_of, names_of, qwen_scope
from saelens_steer.sae.conversion.kinds import (
    SAEKind,
    check_input_norm,
    check_supported,
    kind_of,
    subtracts_of,
)
from saelens_steer.sae.conversion.normalisation import (
    DECODER_NORMS,
    MEANS,
    SCALES,
    Normalisation,
    normalisation_of,
)
from saelens_steer.sae.conversion.shapes import (
    LayerSizes,
    ShapeEvidence,
    WeightMatrix,
    oriented,
    sizes_of,
)
from saelens_steer.sae.conversion.tensors import MATRICES, Tensors, evidence_of, tensors_by_role
from saelens_steer.sae.conversion.unread import check_tensors

OTHER_KINDS = re.compile(r"transcoder|crosscoder|(?<![a-z])clt(?![a-z])", re.I)
"""Names of folders and repositories of other things than SAEs."""
GATED = ("b_gate", "b_mag", "r_mag")
OTHER_WIDTH = ("hook_z", "hook_post")
"""Ends of hooks that are not d_model wide."""


@dataclass(frozen=True)
class CheckpointSAE:
    """The SAE in a checkpoint's units, its axes in SAELens's order."""

    W_dec: Float[Tensor, "d_sae d_in"]
    W_enc: Float[Tensor, "d_in d_sae"] | None
    biases: dict[str, Float[Tensor, " d_sae"]]
    """b_enc, or those of a gated encoder."""
    before: Float[Tensor, " d_in"]
    """Subtracted from the normalised input."""
    after: Float[Tensor, " d_in"]
    """Added to the output; the same object as `before` if they are one parameter."""
    kind: SAEKind
    normalisation: Normalisation


def load_checkpoint(
    file: Path, *, device: str = "cpu", d_model: int | None = None, hook_name: str | None = None
) -> SAE[Any]:
    """Convert a checkpoint in another format to a SAELens SAE in float32.

    `d_model` and `hook_name` are used if the file leaves orientation or hook open. A decoder
    without an encoder gets a W_enc of NaN and metadata.decoder_only. Unit norm per token is
    recorded in metadata.unit_norm_per_token and .activation_mean, which codec.py reads. Says in one
    line how the file was read. Raises InputError for a file that is unsafe, ambiguous,
    contradictory or an unsupported kind of SAE.
    """
    checkpoint = read_checkpoint(file)
    hooks = hooks_of(checkpoint)
    _check_one_hook(checkpoint, hooks)
    name = hooks.name or hook_name
    wide = d_model if name is None or not name.endswith(OTHER_WIDTH) else None
    parts = _parts(checkpoint, wide)
    metadata = {"sae_lens_version": __version__, **hooks.metadata(), "hook_name": name}
    if parts.W_enc is None:
        metadata["decoder_only"] = True
    norm = parts.normalisation
    if norm.mode == "per_token":
        mean = None if norm.mean is None else norm.mean[1].tolist()
        metadata |= {"unit_norm_per_token": True, "activation_mean": mean}
    config = {
        "d_in": parts.W_dec.shape[1],
        "d_sae": parts.W_dec.shape[0],
        "dtype": "float32",
        "device": device,
        "apply_b_dec_to_input": parts.before is parts.after,
        "normalize_activations": norm.mode if norm.mode in RUN_TIME else "none",
        "metadata": metadata,
        **parts.kind.config,
    }
    sae = from_parts(config, _state(parts), device)
    unread = (
        "" if name or not hooks.word else f"; its hook, {hooks.word}, is unknown: give hook_name"
    )
    say(f"{file}: {_summary(sae, norm)}{unread}")
    return sae


def from_parts(config: dict[str, Any], state: dict[str, Tensor], device: str) -> SAE[Any]:
    """The SAELens SAE of a config and state dict, as if they had been read from disk."""

    def convert(
        path: str | Path,  # noqa: ARG001 (nothing is read)
        device: str,  # noqa: ARG001
        cfg_overrides: dict[str, Any] | None,  # noqa: ARG001
    ) -> tuple[dict[str, Any], dict[str, Tensor]]:
        return config, state

    return SAE.load_from_disk("", device=device, converter=convert)


def _check_one_hook(checkpoint: Checkpoint, hooks: Hooks) -> None:
    """Raise InputError for a transcoder, and for what may be one."""
    file = checkpoint.file
    if hooks.differ:
        reads = f"reads {hooks.word or 'one side of a module'}"
        writes = f"writes {hooks.out_word or 'the other'}"
        raise InputError(
            f"{file} is a transcoder ({reads}, {writes}), not an ordinary SAE: load it from its "
            "SAELens release"
        )
    named = next((name for name in names_of(file) if OTHER_KINDS.search(name)), None)
    said = hooks.transcoder is False or hooks.out_word is not None
    if hooks.normed or (named and not said):
        why = f"is called {named}" if named else f"reads {hooks.word}, as transcoders do"
        raise InputError(
            f"{file} {why}: load a transcoder from its SAELens release, or write "
            '"transcoder": false into a config.json beside it if it is an ordinary SAE'
        )


def _parts(checkpoint: Checkpoint, d_model: int | None) -> CheckpointSAE:
    check_supported(checkpoint)
    tensors, normalisation = tensors_by_role(checkpoint), normalisation_of(checkpoint)
    W_dec, W_enc = _matrices(checkpoint, tensors, normalisation, d_model)
    d_sae, d_in = W_dec.shape
    used = {name: v for name, v in checkpoint.beside.items() if name not in (*MEANS, *SCALES)}
    check_tensors(checkpoint.file, used, (d_in, d_sae))
    scale = normalisation.folded(d_in)[1]
    kind = SAEKind("standard")
    if W_enc is not None:
        kind = kind_of(checkpoint, tensors, d_sae, float(scale[0]))
        if check_input_norm(checkpoint, kind, normalisation):
            normalisation = replace(normalisation, mode="layer_norm")
    subtracts = W_enc is None or subtracts_of(checkpoint, tensors)
    biases = _biases(checkpoint, tensors, (d_in, d_sae), kind, subtracts)
    parts = CheckpointSAE(W_dec, W_enc, *biases, kind, normalisation)
    counted = any(truth(checkpoint.settings.get(key)) for key in DECODER_NORMS)
    return _unit_decoder(parts) if counted and W_enc is not None else parts


def _matrices(
    checkpoint: Checkpoint, tensors: Tensors, normalisation: Normalisation, d_model: int | None
) -> tuple[Float[Tensor, "d_sae d_in"], Float[Tensor, "d_in d_sae"] | None]:
    """W_dec and W_enc in SAELens's orientation."""
    matrices = {
        role: WeightMatrix(name, MATRICES[name][1], tensor)
        for role, (name, tensor) in tensors.items()
        if role in ("decoder", "encoder")
    }
    try:
        evidence = evidence_of(
            checkpoint, tensors, normalisation, _more_evidence(checkpoint, d_model)
        )
        sizes = sizes_of(list(matrices.values()), evidence)
        W_dec = oriented(matrices["decoder"], "d_sae", sizes)
        return W_dec, oriented(
            matrices["encoder"], "d_in", sizes
        ) if "encoder" in matrices else None
    except InputError as error:
        raise InputError(f"{checkpoint.file}: {error}") from None


def _more_evidence(checkpoint: Checkpoint, d_model: int | None) -> Sequence[ShapeEvidence]:
    """The model's width, and the width in the name of a Qwen-Scope repository."""
    found = [] if d_model is None else [ShapeEvidence("the model", "d_in", d_model)]
    if named := qwen_scope(checkpoint.file):
        found.append(ShapeEvidence(f"the name {named[0]}", "d_sae", 1024 * int(named[2])))
    return found


def _biases(
    checkpoint: Checkpoint, tensors: Tensors, sizes: LayerSizes, kind: SAEKind, subtracts: bool
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """The encoder's biases, the bias subtracted from the input, and the one added to the output."""
    d_in, d_sae = sizes
    vectors = {role: tensor for role, (_, tensor) in tensors.items()}
    if "b_enc" not in vectors and len(vectors.get("before", ())) not in (0, d_in):
        vectors["b_enc"] = vectors.pop("before")
    if kind.architecture == "gated":
        missing = [name for name in GATED if name not in vectors]
        if missing or "b_enc" in vectors:
            fault = f"holds no {missing[0]}" if missing else f"holds {tensors['b_enc'][0]}"
            raise InputError(f"{checkpoint.file} is a gated SAE, but {fault}")
        encoder = {name: vectors[name] for name in GATED}
    else:
        encoder = {"b_enc": vectors.get("b_enc", torch.zeros(d_sae))}
    if "before" in vectors and "after" in vectors:
        return encoder, vectors["before"], vectors["after"]
    single = vectors.get("after", vectors.get("before", torch.zeros(d_in)))
    return encoder, single if subtracts else torch.zeros(d_in), single


def _unit_decoder(parts: CheckpointSAE) -> CheckpointSAE:
    """Move the norms of W_dec's rows into the encoder, whose activation function counts them in."""
    assert parts.W_enc is not None
    norms = parts.W_dec.norm(dim=-1).clamp_min(1e-8)
    biases = {n: b if n == "r_mag" else b * norms for n, b in parts.biases.items()}
    return replace(
        parts, W_enc=parts.W_enc * norms, W_dec=parts.W_dec / norms[:, None], biases=biases
    )


def _state(parts: CheckpointSAE) -> dict[str, Tensor]:
    """SAELens's parameters, with a dataset-level mean and scale folded in."""
    d_sae, d_in = parts.W_dec.shape
    mean, scale = parts.normalisation.folded(d_in)
    W_enc = torch.full((d_in, d_sae), torch.nan) if parts.W_enc is None else parts.W_enc
    state = {
        "W_enc": W_enc / scale[:, None],
        "W_dec": parts.W_dec * scale,
        "b_dec": parts.after * scale + mean,
        **{name: bias.clone() for name, bias in parts.biases.items()},
    }
    if parts.W_enc is not None and parts.before is not parts.after:
        shift = (mean / scale + parts.before) @ parts.W_enc
        for name in set(BIASES) & set(state):
            state[name] -= shift * parts.biases["r_mag"].exp() if name == "b_mag" else shift
    if parts.kind.threshold is not None:
        state["threshold"] = parts.kind.threshold.clone()
    return {name: tensor.contiguous() for name, tensor in state.items()}


def _summary(sae: SAE[Any], norm: Normalisation) -> str:
    """How the checkpoint was interpreted, for the user to check."""
    sizes = f"{sae.cfg.d_sae} features of {sae.cfg.d_in} dimensions"
    if sae.cfg.metadata.decoder_only:
        return f"only a decoder, {sizes}: it can steer along W_dec but not compute activations"
    bias = "" if sae.cfg.apply_b_dec_to_input else "not "
    kind = sae.cfg.architecture()
    return f"a {kind} SAE, {sizes}; b_dec is {bias}subtracted from its input{_of_input(sae, norm)}"


def _of_input(sae: SAE[Any], norm: Normalisation) -> str:
    """What is done to the input, if anything."""
    if norm.mode == "per_token":
        return "; its input has unit norm per token"
    if norm.mode in RUN_TIME:
        return f"; its input is normalised ({norm.mode})"
    mean, scale = norm.folded(sae.cfg.d_in)
    low, high = f"{scale.min():.3g}", f"{scale.max():.3g}"
    size = f"s = {low}" if low == high else f"s from {low} to {high}"
    x = "(x − μ)" if mean.any() else "x"
    if not bool((scale == 1).all()):
        return f"; it reads {x}/s, folded into its weights ({size})"
    return "; it reads x − μ, folded into its weights" if mean.any() else ""
