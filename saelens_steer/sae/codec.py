"""Encode and decode with an SAE, whatever its input normalisation.

SAELens folds dataset-level scaling into the weights. Normalisation that depends on the token cannot
be folded. There are two kinds: SAELens's run-time modes (`layer_norm`, `constant_norm_rescale`),
whose decoder undoes what the encoder saw last; and the unit norm per token of some older
checkpoints, x̂ = (x − μ) / ‖x − μ‖, which SAELens does not implement. For the latter, metadata has
`unit_norm_per_token` true and `activation_mean` μ (a list of d_in numbers, or None for 0).
An SAE with `centring_folded` reconstructs x minus its mean over d_in, which is added back.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from sae_lens import SAE
from torch import Tensor

from saelens_steer.errors import InputError

CHUNK, ENCODED = 4096, 1 << 25
"""Maximum vectors encoded at once, and feature activations held at once (128 MiB)."""
TINY_NORM = 1e-12
ZERO = torch.tensor(0.0)
_MEANS: WeakKeyDictionary[SAE[Any], tuple[Any, Tensor]] = WeakKeyDictionary()
RESHAPING = ("reshape_fn_in", "reshape_fn_out", "d_head", "hook_z_reshaping_mode")
"""The value that SAELens sets on an SAE that reshapes heads."""
RUN_TIME = ("layer_norm", "constant_norm_rescale")
SIGNED = ("abstopk",)
"""Architectures whose feature activations may be negative."""

Features = Float[Tensor, "... d_sae"]
Inputs = Float[Tensor, "... d_in"]


def rows_at_once(sae: SAE[Any]) -> int:
    """Number of vectors to encode at once; bounds memory for wide SAEs."""
    return max(1, min(CHUNK, ENCODED // sae.cfg.d_sae))


def through(sae: SAE[Any], x: Inputs) -> Inputs:
    """decode(encode(x)) in the shape and dtype of x, computed in chunks."""
    pieces = x.reshape(-1, x.shape[-1]).split(rows_at_once(sae))
    return torch.cat([decode(sae, encode(sae, part), part).to(x) for part in pieces]).view_as(x)


def encode(sae: SAE[Any], x: Inputs) -> Features:
    """Feature activations z of activations x, in the SAE's dtype and on its device.

    Raises InputError for an SAE without an encoder.
    """
    check_encoder(sae)
    with _heads_joined(sae):
        return sae.encode(_normalised(sae, x.to(sae.device, sae.dtype)))


def decode(sae: SAE[Any], z: Features, x: Inputs) -> Inputs:
    """The SAE's output for z, in the units of x, the activations that z was encoded from."""
    x = x.to(sae.device, sae.dtype)
    if sae.cfg.normalize_activations in RUN_TIME:
        encode(sae, x)  # decode undoes the last encode's normalisation
    with _heads_joined(sae):
        x_hat = sae.decode(z)
    if sae.cfg.metadata.centring_folded:  # see centring.py: the decoder knows nothing of x's mean
        return x_hat + x.mean(dim=-1, keepdim=True)
    if not _per_token(sae):
        return x_hat
    mean = _mean(sae)
    return x_hat * _norm(x - mean) + mean


def decode_change(sae: SAE[Any], z: Features, z_new: Features, x: Inputs) -> Inputs:
    """decode(z_new) − decode(z), in the units of x; exactly 0 if z_new equals z.

    For a linear decoder, (z_new − z) · W_dec over the features that differ on any token. SAELens's
    TopK SAEs with `rescale_acts_by_decoder_norm` decode along unit rows.
    """
    if sae.cfg.normalize_activations in RUN_TIME:
        return decode(sae, z_new, x) - decode(sae, z, x)
    change = z_new - z
    changed = (change != 0).reshape(-1, change.shape[-1]).any(0).nonzero().flatten()
    rows = sae.W_dec[changed]
    if getattr(sae.cfg, "rescale_acts_by_decoder_norm", False):
        rows = rows / rows.norm(dim=-1, keepdim=True)
    delta = change[..., changed] @ rows
    return delta * _norm(x.to(delta) - _mean(sae)) if _per_token(sae) else delta


@contextlib.contextmanager
def _heads_joined(sae: SAE[Any]) -> Iterator[None]:
    """Stop an SAE of attn.hook_z from expecting [..., n_heads, d_head], inside the context.

    SAELens switches that on for `reshape_activations: hook_z`; here heads are one vector.
    """
    if not getattr(sae, "hook_z_reshaping_mode", False):
        yield
        return
    kept = {name: getattr(sae, name, None) for name in RESHAPING}  # d_head: from the first input
    sae.turn_off_forward_pass_hook_z_reshaping()
    try:
        yield
    finally:
        for name, value in kept.items():
            setattr(sae, name, value)


def check_encoder(sae: SAE[Any]) -> None:
    """Raise InputError for an SAE without an encoder."""
    if sae.cfg.metadata.decoder_only:
        raise InputError(
            "this SAE has only a decoder: it can steer along W_dec, but ablate, scale, set, "
            "suppress_and_boost, reconstruct and selection need an SAE with an encoder"
        )


def counts_firing(sae: SAE[Any]) -> bool:
    """Whether the SAE has an encoder, and z ≥ 0, so that a feature fires if z > 0."""
    return not sae.cfg.metadata.decoder_only and sae.cfg.architecture() not in SIGNED


def check_positive(sae: SAE[Any]) -> None:
    """Raise InputError for an SAE without an encoder, or whose activations may be negative."""
    check_encoder(sae)
    check_unsigned(sae.cfg.architecture())


def check_unsigned(architecture: str) -> None:
    """Raise InputError for an architecture whose activations may be negative."""
    if architecture in SIGNED:
        raise InputError(
            f"feature activations of an {architecture} SAE may be negative, and selection, max_act "
            "and firing rates are defined for positive ones: name the features, and use another "
            "unit of strength, such as raw"
        )


def _normalised(sae: SAE[Any], x: Inputs) -> Inputs:
    if not _per_token(sae):
        return x
    centred = x - _mean(sae)
    return centred / _norm(centred)


def _per_token(sae: SAE[Any]) -> bool:
    return bool(sae.cfg.metadata.unit_norm_per_token)


def _mean(sae: SAE[Any]) -> Tensor:
    """μ as a tensor, cached per SAE: converting the list at every token would be slow."""
    listed, (converted, mean) = sae.cfg.metadata.activation_mean, _MEANS.get(sae, (None, ZERO))
    if converted is not listed or (mean.dtype, mean.device) != (sae.dtype, sae.device):
        mean = torch.as_tensor(0.0 if listed is None else listed, dtype=sae.dtype)
        mean = mean.to(sae.device)
        _MEANS[sae] = listed, mean
    return mean


def _norm(centred: Inputs) -> Float[Tensor, "... 1"]:
    least = max(TINY_NORM, torch.finfo(centred.dtype).tiny)
    return centred.norm(dim=-1, keepdim=True).clamp_min(least)
