"""Fold the centring of writing weights into an SAE.

TransformerLens can centre the weights that write to the residual stream (`center_writing_weights`),
which subtracts from x its mean over d_model. An SAE trained on such a model reads P·x, where
P = I − 11ᵀ/d. Folded, it reads the x of a model without processing: z is the same, exactly up to
rounding, and a push along W_dec[f] has the same effect, because every norm subtracts the mean
again. Its own decoder reconstructs P·x; `codec.decode` adds the mean of x to that.
"""

from __future__ import annotations

import copy
import re
from typing import Any

import torch
from sae_lens import SAE
from torch import Tensor

from saelens_steer.errors import InputError
from saelens_steer.model import processing_of
from saelens_steer.model.model_class import Model

CENTRED = re.compile(r"blocks\.\d+\.hook_(resid_(pre|mid|post)|mlp_out|attn_out)|hook_embed")
"""Hooks whose activations centring changes, unlike attn.hook_z, normalised inputs and logits."""
FOLDABLE = ("standard", "gated", "topk", "abstopk", "jumprelu")
BIASES = ("b_enc", "b_gate", "b_mag")


def expects_centred(sae: SAE[Any]) -> bool:
    """Whether the SAE was trained on a model with centred writing weights, at a hook they change.

    SAELens records this in metadata.model_from_pretrained_kwargs; `fold_centring` clears it.
    """
    given = sae.cfg.metadata.model_from_pretrained_kwargs or {}
    hook_name = str(sae.cfg.metadata.hook_name)
    return bool(given.get("center_writing_weights")) and CENTRED.fullmatch(hook_name) is not None


def check_centring(sae: SAE[Any], model: Model) -> None:
    """Raise InputError if the SAE reads centred activations, and the model's are not centred."""
    if expects_centred(sae) and not processing_of(model).centred_writing_weights:
        raise InputError(
            "the SAE was trained on a model with centred writing weights, and this model's are not "
            "centred: load it with load_sae(…, model=model), which folds the centring into the SAE"
        )


def fitted_to(model: Model, sae: SAE[Any]) -> SAE[Any]:
    """The SAE, with centring folded in if it reads centred activations and the model's are not.

    Raises the InputErrors of `fold_centring`.
    """
    centred = not expects_centred(sae) or processing_of(model).centred_writing_weights
    return sae if centred else fold_centring(sae)


@torch.no_grad()
def fold_centring(sae: SAE[Any]) -> SAE[Any]:
    """A copy of an SAE of centred activations that reads uncentred ones: z(x) = z_old(P·x).

    W_enc ← P·W_enc, and if b_dec is subtracted from the input, b_enc ← b_enc − (b_dec − P·b_dec)·
    W_enc with the old W_enc. metadata.centring_folded records it. Raises InputError for an
    architecture whose encoder is not linear in x, and for one that was folded before.
    """
    kind = sae.cfg.architecture()
    if kind not in FOLDABLE:
        raise InputError(f"centring cannot be folded into a {kind} SAE: centre the model instead")
    if sae.cfg.normalize_activations != "none" or sae.cfg.metadata.unit_norm_per_token:
        raise InputError(
            "centring cannot be folded into an SAE that normalises its input: centre the model "
            "instead"
        )
    if sae.cfg.metadata.centring_folded:
        raise InputError("centring has been folded into this SAE already")
    folded = copy.deepcopy(sae)
    if sae.cfg.apply_b_dec_to_input:
        mean = sae.b_dec.double().mean()
        shift = (mean * sae.W_enc.double().sum(0)).to(sae.dtype)
        for name in BIASES:
            if isinstance(bias := getattr(folded, name, None), Tensor):
                bias.data -= shift * sae.r_mag.exp() if name == "b_mag" else shift  # pyright: ignore
    folded.W_enc.data -= sae.W_enc.double().mean(0).to(sae.dtype)
    given = dict(sae.cfg.metadata.model_from_pretrained_kwargs or {})
    given.pop("center_writing_weights", None)
    folded.cfg.metadata.model_from_pretrained_kwargs = given
    folded.cfg.metadata.centring_folded = True
    return folded
