"""Through an SAE and back, for every way its input may be normalised.

SAELens folds dataset-level scaling into the weights. Two normalisations depend on the token and
cannot be folded: SAELens's own at run time (`layer_norm`, `constant_norm_rescale`: the decoder
uses what the encoder saw last), and the unit norm per token of some older checkpoints, which
SAELens cannot express and which their metadata records: x̂ = (x − μ) / ‖x − μ‖, with
`unit_norm_per_token` true and `activation_mean` μ, a list of d_in numbers or nothing for 0.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from sae_lens import SAE
from torch import Tensor

from saelens_steer.errors import InputError

CHUNK, ENCODED = 4096, 1 << 25
"""Vectors encoded at once, and feature activations held at once (an eighth of a gigabyte)."""
TINY_NORM = 1e-12
ZERO = torch.tensor(0.0)
_MEANS: WeakKeyDictionary[SAE[Any], tuple[Any, Tensor]] = WeakKeyDictionary()
RUN_TIME = ("layer_norm", "constant_norm_rescale")

Features = Float[Tensor, "... d_sae"]
Inputs = Float[Tensor, "... d_in"]


def rows_at_once(sae: SAE[Any]) -> int:
    """How many vectors are encoded at once, so that memory does not grow with the SAE's width."""
    return max(1, min(CHUNK, ENCODED // sae.cfg.d_sae))


def through(sae: SAE[Any], x: Inputs) -> Inputs:
    """decode(encode(x)) in the shape and dtype of x, computed piece by piece."""
    pieces = x.reshape(-1, x.shape[-1]).split(rows_at_once(sae))
    return torch.cat([decode(sae, encode(sae, part), part).to(x) for part in pieces]).view_as(x)


def encode(sae: SAE[Any], x: Inputs) -> Features:
    """Feature activations z of activations x, in the SAE's dtype, on its device.

    Raises InputError for an SAE that has only its decoder.
    """
    check_encoder(sae)
    return sae.encode(_normalised(sae, x.to(sae.device, sae.dtype)))


def decode(sae: SAE[Any], z: Features, x: Inputs) -> Inputs:
    """The SAE's output for z, in the units of x (the activations that z was encoded from)."""
    x = x.to(sae.device, sae.dtype)
    if sae.cfg.normalize_activations in RUN_TIME:
        sae.encode(_normalised(sae, x))  # its decoder undoes what its encoder did last
    rebuilt = sae.decode(z)
    if not _per_token(sae):
        return rebuilt
    mean = _mean(sae)
    return rebuilt * _size(x - mean) + mean


def decode_change(sae: SAE[Any], z: Features, z_new: Features, x: Inputs) -> Inputs:
    """decode(z_new) − decode(z), in the units of x, exactly zero if z_new equals z.

    A linear decoder gives (z_new − z) · W_dec, computed from the features that differ anywhere.
    Some TopK SAEs of SAELens count z in the norms of W_dec's rows, and decode along unit rows.
    """
    if sae.cfg.normalize_activations in RUN_TIME:
        return decode(sae, z_new, x) - decode(sae, z, x)
    change = z_new - z
    moved = (change != 0).reshape(-1, change.shape[-1]).any(0).nonzero().flatten()
    rows = sae.W_dec[moved]
    if getattr(sae.cfg, "rescale_acts_by_decoder_norm", False):
        rows = rows / rows.norm(dim=-1, keepdim=True)
    step = change[..., moved] @ rows
    return step * _size(x.to(step) - _mean(sae)) if _per_token(sae) else step


def check_encoder(sae: SAE[Any]) -> None:
    """Raise InputError for an SAE that has a decoder only."""
    if sae.cfg.metadata.decoder_only:
        raise InputError(
            "this SAE has only its decoder: it can steer along W_dec, but nothing that needs "
            "feature activations (ablate, scale, set, suppress_and_boost, reconstruct, selection)"
        )


def _normalised(sae: SAE[Any], x: Inputs) -> Inputs:
    if not _per_token(sae):
        return x
    centred = x - _mean(sae)
    return centred / _size(centred)


def _per_token(sae: SAE[Any]) -> bool:
    return bool(sae.cfg.metadata.unit_norm_per_token)


def _mean(sae: SAE[Any]) -> Tensor:
    """μ as a tensor; a list of thousands of numbers is turned into one once, not at each token."""
    listed, (kept, mean) = sae.cfg.metadata.activation_mean, _MEANS.get(sae, (None, ZERO))
    if kept is not listed or (mean.dtype, mean.device) != (sae.dtype, sae.device):
        mean = torch.as_tensor(0.0 if listed is None else listed, dtype=sae.dtype)
        mean = mean.to(sae.device)
        _MEANS[sae] = listed, mean
    return mean


def _size(centred: Inputs) -> Float[Tensor, "... 1"]:
    least = max(TINY_NORM, torch.finfo(centred.dtype).tiny)
    return centred.norm(dim=-1, keepdim=True).clamp_min(least)
