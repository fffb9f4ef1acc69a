"""Fold the centring of writing weights into an SAE.

TransformerLens can centre the weights that write to the residual stream (`center_writing_weights`),
which subtracts from x its mean over d_model, if the norms are LayerNorms. An SAE trained on such a
model reads P·x, where P = I − 11ᵀ/d. Folded, it reads the x of a model without processing: z is the
same, exactly up to rounding, and a push along W_dec[f] has the same effect, because every norm
subtracts the mean again. Its own decoder reconstructs P·x; `codec.decode` adds the mean of x.
"""

from __future__ import annotations

import copy
import re
from typing import Any

import torch
from sae_lens import SAE
from torch import Tensor
from transformer_lens.supported_models import OFFICIAL_MODEL_NAMES

from saelens_steer.errors import InputError
from saelens_steer.model import subtracts_mean
from saelens_steer.model.model_class import Model
from saelens_steer.model.names import hub_ids
from saelens_steer.progress import say

CENTRED = re.compile(r"blocks\.\d+\.hook_(resid_(pre|mid|post)|mlp_out|attn_out)|hook_embed")
"""Hooks whose activations centring changes, unlike attn.hook_z, normalised inputs and logits."""
LAYER_NORMS = re.compile(
    r".*/?(distil|mgpt|\S+-)?gpt2|.*/(gpt-(j|neo)|pythia|opt|bloom|phi-[12]|tinystories|santacoder)",
    re.IGNORECASE,
)
"""Ids of models in TransformerLens's list whose norms are LayerNorms."""
LINEAR = ("standard", "gated", "topk", "abstopk", "jumprelu")
"""Architectures whose encoder is linear in x before the activation function."""
BIASES = ("b_enc", "b_gate", "b_mag")
"""Encoder biases that a shift of the input changes."""


def expects_centred(sae: SAE[Any]) -> bool:
    """Whether the SAE was trained on a model with centred writing weights, at a hook they change.

    SAELens records this in metadata.model_from_pretrained_kwargs; `fold_centring` clears it.
    """
    given = sae.cfg.metadata.model_from_pretrained_kwargs or {}
    hook_name = str(sae.cfg.metadata.hook_name)
    return bool(given.get("center_writing_weights")) and CENTRED.fullmatch(hook_name) is not None


def for_plain_weights(sae: SAE[Any], model: Model | None = None) -> SAE[Any]:
    """The SAE, with centring folded if it expects that; it then reads centred models as before.

    Unchanged unless the norms are LayerNorms, since TransformerLens centres no other model;
    without `model`, the name in the SAE's metadata must be of a model known to have them. Also
    unchanged if centring cannot be folded into it; `check_sae` then requires a centred model.
    """
    if not expects_centred(sae) or _unfoldable(sae):
        return sae
    known = _has_layer_norms(str(sae.cfg.metadata.model_name))
    if not (known if model is None else subtracts_mean(model)):
        return sae
    say("the SAE was trained on a model with centred weights; the centring is now folded into it")
    return fold_centring(sae)


def _has_layer_norms(model_name: str) -> bool:
    """Whether a name is of a model in TransformerLens's list that has LayerNorms."""
    ids = [i for i in (model_name, *hub_ids(model_name)) if i in OFFICIAL_MODEL_NAMES]
    return any(LAYER_NORMS.match(hub_id) for hub_id in ids)


def _unfoldable(sae: SAE[Any]) -> str | None:
    """What kind of SAE it is, if its encoder is not linear in x."""
    kind = sae.cfg.architecture()
    if kind not in LINEAR:
        return f"a {kind} SAE"
    normalises = sae.cfg.normalize_activations != "none" or sae.cfg.metadata.unit_norm_per_token
    return "an SAE that normalises its input" if normalises else None


@torch.no_grad()
def fold_centring(sae: SAE[Any]) -> SAE[Any]:
    """A copy of an SAE of centred activations that reads uncentred ones: z(x) = z_old(P·x).

    W_enc ← P·W_enc, and if b_dec is subtracted from the input, b_enc ← b_enc − (b_dec − P·b_dec)·
    W_enc with the old W_enc. metadata.centring_folded records it. Raises InputError for an
    architecture whose encoder is not linear in x, and for one that was folded before.
    """
    if what := _unfoldable(sae):
        raise InputError(f"centring cannot be folded into {what}: centre the model instead")
    if sae.cfg.metadata.centring_folded:
        raise InputError("centring has already been folded into this SAE")
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
