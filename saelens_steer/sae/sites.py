"""Where an SAE reads its input, and where its decoder writes.

Most SAEs read and write at one hook. A transcoder reads an MLP's input and predicts its output: its
encoder applies at one hook, pushes along W_dec at another, and it cannot be spliced in at either.
"""

from __future__ import annotations

from typing import Any

from sae_lens import SAE

from saelens_steer.errors import InputError
from saelens_steer.model import (
    MLP_INPUT,
    hook_layer,
    hook_width,
    in_block,
    same_places,
    subtracts_mean,
    writes_centred,
)
from saelens_steer.sae.centring import expects_centred
from saelens_steer.sae.codec import check_encoder
from saelens_steer.sae.conversion.hook_words import MODULE, hook_of_word
from saelens_steer.sae.finite import check_finite
from saelens_steer.sae.saelens_format import TRANSCODERS, check_architecture

NORM_AFTER_ATTENTION = "post_attention_layernorm"
"""The norm before the MLP, or the norm after attention in models that have one."""
BEFORE_MLP = ("mlp", "pre_feedforward_layernorm", "pre_mlp_layernorm", "ln_2", NORM_AFTER_ATTENTION)
"""Modules of transformers around MLP_INPUT: it is the input of the MLP, and the output of the norm
before it, which has several names."""
MODULE_OUTPUTS = ("mlp", "self_attn", "attn", "attention")
"""Modules of transformers whose output a norm may follow before the residual stream."""


def is_transcoder(sae: SAE[Any]) -> bool:
    """Whether the SAE reads one hook and writes to another."""
    return sae.cfg.architecture() in TRANSCODERS


def reads_where_it_steers(sae: SAE[Any]) -> bool:
    """Whether its encoder applies to the activations that its decoder rows push."""
    return not is_transcoder(sae) and not sae.cfg.metadata.decoder_only


def reads_at(sae: SAE[Any]) -> str | None:
    """The hook whose activations the SAE encodes; None if it does not say.

    For a transcoder, `metadata.hf_hook_name` takes precedence over `hook_name`: for Gemma Scope 2,
    SAELens gives `hook_mlp_in`, which is before the norm. Raises InputError if neither settles it.
    """
    about = sae.cfg.metadata
    if not is_transcoder(sae):
        return about.hook_name
    found = _of_words(about.hook_name, about.hf_hook_name)
    if found is not None and in_block(found) == "hook_mlp_in":
        layer = hook_layer(found)
        raise InputError(
            f"the transcoder gives {found} as its input, a name used both for the activation "
            "before the norm and for the norm's output: in the metadata of its cfg.json, write "
            f'"hf_hook_name": "model.layers.{layer}.mlp.input" if it reads the norm\'s output, or '
            f'"hook_name": "blocks.{layer}.hook_resid_mid" if it reads the activation before it'
        )
    return found


def steers_at(sae: SAE[Any]) -> str | None:
    """The hook at which W_dec[f] is a direction; None if the SAE does not say."""
    about = sae.cfg.metadata
    if not is_transcoder(sae):
        return about.hook_name
    return _of_words(about.hook_name_out, about.hf_hook_name_out)


def check_sae(sae: SAE[Any], model: Any, hook_name: str) -> None:
    """Raise InputError unless pushes along W_dec, and edits of z, apply at this hook of the model.

    A transcoder has no edits of z (`check_splice`).
    """
    _check_kind(sae)
    right = steers_at(sae)
    if is_transcoder(sae):
        _check_steers(sae, model, right, hook_name)
    else:
        _check_reads(sae, hook_name)
    width, rows = hook_width(model, hook_name), sae.W_dec.shape[1]
    if rows != width:
        what = f"the SAE reads {rows} dimensions, but activations have {width}"
        if is_transcoder(sae):
            what = f"the transcoder writes {rows} dimensions, but {hook_name} has {width}"
        raise InputError(f"{what}: choose an SAE for this model")
    _check_side_of_norm(sae, model, hook_name)
    _check_centring(sae, model)


def check_sae_at(sae: SAE[Any], width: int, hook_name: str) -> None:
    """Raise InputError unless the SAE encodes activations of this hook, and of this width."""
    _check_kind(sae)
    _check_reads(sae, hook_name)
    if sae.cfg.d_in != width:
        raise InputError(
            f"the SAE reads {sae.cfg.d_in} dimensions, but activations have {width}: "
            "choose an SAE for this model"
        )


def check_hook(sae: SAE[Any], hook_name: str) -> None:
    """Raise InputError if the SAE records hooks, and this is none of them."""
    if is_transcoder(sae) and hook_name in same_places(str(steers_at(sae))):
        return
    _check_reads(sae, hook_name)


def check_splice(sae: SAE[Any]) -> None:
    """Raise InputError unless edits of z apply where the SAE steers, and it has an encoder."""
    _check_kind(sae)
    check_encoder(sae)
    if is_transcoder(sae):
        raise InputError(
            f"this is a transcoder, which reads from {reads_at(sae)} and writes to "
            f"{steers_at(sae)}: ablate, scale, set_to, suppress_and_boost, reconstruct, gates "
            "and SAE quality need an ordinary SAE; use add or project_out along W_dec at "
            f"{steers_at(sae)}"
        )


def _check_kind(sae: SAE[Any]) -> None:
    """Raise InputError for untested kinds of SAE, and for weights that are not numbers."""
    check_architecture(sae.cfg.architecture(), "this")
    if sae.W_dec.ndim != 2:
        raise InputError(
            f"W_dec has shape {list(sae.W_dec.shape)}, as in a cross-layer transcoder, which "
            "writes to many hooks: it is not supported"
        )
    check_finite(sae)


def _check_reads(sae: SAE[Any], hook_name: str) -> None:
    right = reads_at(sae)
    if right is None or hook_name in (places := same_places(right)):
        return
    if is_transcoder(sae):
        raise InputError(
            f"the transcoder reads from {right} and writes to {steers_at(sae)}, but these are "
            f"activations of {hook_name}: cache them with hook_name={right!r}"
        )
    use = " or ".join(places)
    raise InputError(f"the SAE was made for {right}, not for {hook_name}: use {use}")


def _check_steers(sae: SAE[Any], model: Any, right: str | None, hook_name: str) -> None:
    reads = reads_at(sae)
    if right is None and reads is not None and hook_name in same_places(reads):
        layer = hook_layer(reads)
        raise InputError(
            f"the transcoder reads from {reads} but does not say where it writes to: give the hook "
            f"of its output as hook_name, such as 'blocks.{layer}.hook_mlp_out'"
        )
    if right is not None and hook_name not in same_places(right):
        raise InputError(
            f"the transcoder reads from {reads} and writes to {right}: steer at {right}, not at "
            f"{hook_name}"
        )
    word = str(sae.cfg.metadata.hf_hook_name or "")
    if NORM_AFTER_ATTENTION in word and _normalises_outputs(model):
        raise InputError(
            f"the transcoder reads {word}, which in this model is attention's output, not the "
            "MLP's input: it belongs to another model"
        )


def _check_side_of_norm(sae: SAE[Any], model: Any, hook_name: str) -> None:
    """Raise InputError if the SAE was trained on the output before this hook's norm."""
    about = sae.cfg.metadata
    word = str((about.hf_hook_name_out if is_transcoder(sae) else about.hf_hook_name) or "")
    module = word.removesuffix(".output").split(".")[-1]
    raw = "mlp.hook_out" if module == "mlp" else "attn.hook_out"
    if module in MODULE_OUTPUTS and _normalises_outputs(model) and in_block(hook_name) != raw:
        raise InputError(
            f"the SAE was trained on the output of {word}, which a norm follows in this model, "
            f"and {hook_name} comes after that norm: use a TransformerBridge and its {raw}"
        )


def _check_centring(sae: SAE[Any], model: Any) -> None:
    """Raise InputError if the SAE expects centred weights, and the model's are not.

    TransformerLens centres only models with LayerNorms; for others the setting had no effect.
    """
    if not subtracts_mean(model):
        if sae.cfg.metadata.centring_folded:
            raise InputError(
                "centring was folded into the SAE, which is right only for models with LayerNorms, "
                "unlike this one: load the SAE again from its source"
            )
        return
    if expects_centred(sae) and not writes_centred(model):
        raise InputError(
            "the SAE was trained on a model with centred weights (center_writing_weights), but "
            "this model's are not: load the SAE with load_sae(…, model=model), which folds the "
            "centring into it if possible, or centre the model"
        )


def _normalises_outputs(model: Any) -> bool:
    """Whether norms follow the MLP and attention, as in Gemma 2 and 3."""
    return bool(getattr(model.cfg, "use_normalization_before_and_after", False))


def _of_words(hook_name: str | None, word: str | None) -> str | None:
    """The hook that the checkpoint's own metadata name, or else SAELens's name."""
    if not word:
        return hook_name
    found = _mlp_input(word) or hook_of_word(word)
    if found is None:
        raise InputError(
            f"the transcoder's metadata names {word!r}, which is not a known tensor: in its "
            "cfg.json, set hf_hook_name (or hf_hook_name_out) to one such as "
            "model.layers.5.mlp.input"
        )
    if hook_name is not None and hook_layer(hook_name) != hook_layer(found):
        raise InputError(
            f"the transcoder's metadata names both {hook_name} and {word}, which are of different "
            "layers: correct one in its cfg.json"
        )
    return found


def _mlp_input(word: str) -> str | None:
    """MLP_INPUT of the layer, if the word says so: `…layers.3.ln_2.output`."""
    module = MODULE.fullmatch(word)
    if module is None:
        return None
    name, _, side = module[2].lstrip(".").rpartition(".")
    reads = (name, side) == ("mlp", "input") or (name in BEFORE_MLP[1:] and side == "output")
    return f"blocks.{module[1]}.{MLP_INPUT}" if reads else None
