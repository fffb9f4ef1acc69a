"""Centre and scale activations for training, and fold that into the trained SAE."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from sae_lens import SAE
from torch import Tensor

from saelens_steer.errors import InputError
from saelens_steer.sae.centring import BIASES
from saelens_steer.tensors import Vectors

FOLDABLE = ("standard", "gated", "jumprelu")
"""Architectures whose decoder norms SAELens folds exactly after training. TopK variants fold them
during training."""
SCALABLE = (*FOLDABLE, "topk", "abstopk", "batchtopk", "matryoshka_batchtopk")
"""Architectures whose z scales with the input if biases and thresholds are scaled too. Not
matching_pursuit: it has no encoder bias, and rounding decides when it stops."""
ROWS = 8192
"""Vectors converted to float64 at a time."""


@dataclass(frozen=True)
class Scaling:
    """x̂ = (x − mean) / scale: mean [d_in] in the activations' units, scale the mean ‖x − mean‖."""

    mean: Float[Tensor, " d_in"]
    scale: float

    def __call__(self, vectors: Vectors) -> Vectors:
        """The centred and scaled vectors, in float32."""
        return (vectors.float() - self.mean) / self.scale


def scaling_of(vectors: Vectors) -> Scaling:
    """Mean and scale of the vectors, summed in float64. Raises InputError if they are all equal."""
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
    """Fold decoder norms, and `scaling` if given, into the SAE saved in this folder."""
    sae = SAE.load_from_disk(str(folder))
    if sae.cfg.architecture() not in FOLDABLE and scaling is None:
        return
    fold_decoder_norms(sae)
    if scaling is not None:
        fold_scaling(sae, scaling)
    sae.save_model(str(folder))


def fold_decoder_norms(sae: SAE[Any]) -> None:
    """Give W_dec unit rows by moving their norms into the encoder; the function is unchanged."""
    if sae.cfg.architecture() in FOLDABLE:
        sae.fold_W_dec_norm()


@torch.no_grad()
def fold_scaling(sae: SAE[Any], scaling: Scaling) -> None:
    """Make an SAE of x̂ read x, in place: sae(x) = scale · sae(x̂) + mean, and z is scaled too.

    W_enc and W_dec do not change. The metadata records activation_mean_norm (‖mean‖) and
    activation_scale.
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
                change = shift * sae.r_mag.exp() if name == "b_mag" else shift  # pyright: ignore
                getattr(sae, name).data.sub_(change)
    sae.cfg.metadata.activation_mean_norm = float(scaling.mean.norm())
    sae.cfg.metadata.activation_scale = scaling.scale
