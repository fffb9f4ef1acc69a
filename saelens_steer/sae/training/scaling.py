"""Centring and scaling activations for training, and folding that into the SAE afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from sae_lens import SAE
from torch import Tensor

from saelens_steer.errors import InputError
from saelens_steer.tensors import Vectors

FOLDABLE = ("standard", "gated", "jumprelu")
"""Architectures whose decoder norms SAELens folds exactly after training; topk and its kin fold as
they train."""
SCALABLE = (*FOLDABLE, "topk", "abstopk", "batchtopk", "matryoshka_batchtopk")
"""Architectures whose z grows with the input if biases and thresholds do. matching_pursuit stops at
a threshold that other tokens' rounding decides, and has no encoder bias."""
BIASES = ("b_enc", "b_gate", "b_mag")
ROWS = 8192
"""Vectors in float64 at a time."""


@dataclass(frozen=True)
class Scaling:
    """x̂ = (x − mean) / scale: mean [d_in] in the activations' units, scale the mean ‖x − mean‖."""

    mean: Float[Tensor, " d_in"]
    scale: float

    def __call__(self, vectors: Vectors) -> Vectors:
        """The vectors centred and scaled, in float32."""
        return (vectors.float() - self.mean) / self.scale


def scaling_of(vectors: Vectors) -> Scaling:
    """Mean and scale of these vectors, summed in float64. InputError if all are the same."""
    n = len(vectors)
    mean = sum(part.double().sum(0) for part in vectors.split(ROWS)) / n
    assert isinstance(mean, Tensor)
    norms = ((part.double() - mean).norm(dim=-1).sum() for part in vectors.split(ROWS))
    scale = float(sum(norms)) / n
    if not scale > 0:
        raise InputError(
            f"normalize mean_scale needs activations that differ, but all {n} are the same (or "
            "not finite): choose another hook"
        )
    return Scaling(mean.float(), scale)


def fold_into(folder: Path, scaling: Scaling | None) -> None:
    """Fold decoder norms, and the scaling of the activations, into the saved SAE."""
    sae = SAE.load_from_disk(str(folder))
    if sae.cfg.architecture() not in FOLDABLE and scaling is None:
        return
    fold_decoder_norms(sae)
    if scaling is not None:
        fold_scaling(sae, scaling)
    sae.save_model(str(folder))


def fold_decoder_norms(sae: SAE[Any]) -> None:
    """Move the norms of W_dec's rows into the encoder: the same SAE, and one α pushes all alike."""
    if sae.cfg.architecture() in FOLDABLE:
        sae.fold_W_dec_norm()


@torch.no_grad()
def fold_scaling(sae: SAE[Any], scaling: Scaling) -> None:
    """Make an SAE of x̂ one of x, in place: sae(x) becomes scale · sae(x̂) + mean, z scale · z.

    W_enc and W_dec stay as they are (unit rows stay unit rows). The metadata gets
    activation_mean_norm (‖mean‖) and activation_scale, for the record alone.
    """
    mean = scaling.mean.to(sae.W_enc)
    for name in (*BIASES, "threshold"):
        if isinstance(getattr(sae, name, None), Tensor):
            getattr(sae, name).data.mul_(scaling.scale)
    sae.b_dec.data.mul_(scaling.scale).add_(mean)
    if not sae.cfg.apply_b_dec_to_input:
        shift = mean @ sae.W_enc
        for name in BIASES:
            if isinstance(getattr(sae, name, None), Tensor):
                own = shift * sae.r_mag.exp() if name == "b_mag" else shift  # pyright: ignore
                getattr(sae, name).data.sub_(own)
    sae.cfg.metadata.activation_mean_norm = float(scaling.mean.norm())
    sae.cfg.metadata.activation_scale = scaling.scale
