"""What kind of SAE a checkpoint holds: architecture, k, threshold, and the use of its biases.

Nothing is assumed. The settings decide, or a known format supplies what its files leave out:

    dictionary_learning    dict_class gives architecture and use of the bias
    sparsify, EleutherAI   TopK; b_dec is subtracted from the input and added to the output
    Llama Scope            its own names of settings
    Gemma Scope            `params.npz` or `params.safetensors`: JumpReLU; b_dec is only added
    Qwen-Scope             the repository's name gives k: TopK; b_dec is only added
    OpenAI                 pre_bias is subtracted and added; TopK normalises its input (LayerNorm)

The names pre_bias and bias imply subtraction from the input. If something remains undetermined, the
checkpoint is refused, with the line to write into a config.json.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from saelens_steer.errors import InputError
from saelens_steer.sae.conversion.checkpoint import Checkpoint, is_number, truth
from saelens_steer.sae.conversion.hooks import qwen_scope
from saelens_steer.sae.conversion.normalisation import Normalisation
from saelens_steer.sae.conversion.tensors import Tensors
from saelens_steer.sae.conversion.unread import ignoring

ARCHITECTURE_KEYS = (
    *("architecture", "dict_class", "sae_type", "sae_class"),
    *("activation", "activation_fn", "activation_fn_str", "act_fn"),
)
NAMES = {
    **dict.fromkeys(("relu", "standard", "vanilla"), "standard"),
    **{name: name for name in ("topk", "gated", "jumprelu")},
    **dict.fromkeys(("batchtopk", "matryoshkabatchtopk"), "jumprelu"),
}
KINDS = {
    **{f"{name}{end}": kind for name, kind in NAMES.items() for end in ("", "sae", "autoencoder")},
    **dict.fromkeys(("autoencoder", "autoencodernew"), "standard"),
    "autoencodertopk": "topk",
}
"""Words in the settings of ARCHITECTURE_KEYS → architecture. `activation_fn: topk` makes an
`architecture: standard` more precise. BatchTopK SAEs use their threshold."""
TRAINERS = {
    **dict.fromkeys(
        ("standardtrainer", "standardtraineraprilupdate", "pannealtrainer"), "standard"
    ),
    **dict.fromkeys(("gatedsaetrainer", "gatedannealtrainer"), "gated"),
    **dict.fromkeys(("batchtopktrainer", "matryoshkabatchtopktrainer"), "jumprelu"),
    "topktrainer": "topk",
    "jumprelutrainer": "jumprelu",
}
"""dictionary_learning's trainers, which count if nothing else states the kind."""
SAYS_NOTHING = ("sae", "sparseautoencoder", "")
SUBTRACTED = {
    **dict.fromkeys(("autoencoder", "gatedautoencoder", "autoencodertopk"), True),
    **dict.fromkeys(("batchtopksae", "matryoshkabatchtopksae"), True),
    **dict.fromkeys(("autoencodernew", "jumpreluautoencoder"), False),
}
"""dictionary_learning's classes → whether the output bias is also subtracted from the input."""
SUBTRACTS_KEYS = ("apply_b_dec_to_input", "apply_decoder_bias_to_pre_encoder")
UNSUPPORTED = (
    *("signed", "skip_connection", "transcode", "affine_connection", "use_glu_encoder"),
    *("embed_skip", "gram_lookup", "matching_pursuit", "slice_encoder", "slice_decoder", "monet"),
    *("encoder_halut", "encoder_pkm", "encoder_kron", "encoder_monarch"),
)
"""Settings of models that are not ReLU, TopK, JumpReLU or gated SAEs."""
WRITE = "into a config.json beside it"


@dataclass(frozen=True)
class SAEKind:
    """Architecture of a SAELens SAE with what it needs."""

    architecture: str
    k: int | None = None
    threshold: Float[Tensor, " d_sae"] | None = None

    @property
    def config(self) -> dict[str, Any]:
        return {"architecture": self.architecture} | ({} if self.k is None else {"k": self.k})


def check_supported(checkpoint: Checkpoint) -> None:
    """Raise InputError for a setting of a model that is not an SAE of one hook."""
    settings, file = checkpoint.settings, checkpoint.file
    if other := [key for key in UNSUPPORTED if truth(settings.get(key))]:
        raise InputError(f"{file} has {other[0]}: true, which SAELens does not support")
    for key, word in _stated(checkpoint).items():
        if word not in (*SAYS_NOTHING, *KINDS, *TRAINERS):
            raise InputError(
                f"{file} has {key}: {settings[key]}, but only relu, topk, batchtopk, jumprelu and "
                "gated SAEs can be converted"
            )
    if str(settings.get("postact_fn", "relu")).lower() != "relu":
        raise InputError(f"{file} has postact_fn: {settings['postact_fn']}: only ReLU is supported")


def kind_of(checkpoint: Checkpoint, tensors: Tensors, d_sae: int, scale: float) -> SAEKind:
    """The kind in the settings, or else the one that k, thresholds and gates belong to.

    `scale` divides a threshold in the units of x. Raises InputError for a kind that stays unknown
    or contradicts itself, a missing k or threshold, and an SAE that may be either TopK or JumpReLU.
    """
    threshold = _threshold(checkpoint, tensors, d_sae, scale)
    k = _k(checkpoint)
    held = {"topk": k is not None, "jumprelu": threshold is not None, "gated": "r_mag" in tensors}
    kind = _kind_in_settings(checkpoint) or _implied(checkpoint, held)
    if kind == "topk" and k is None and (named := qwen_scope(checkpoint.file)):
        k, held["topk"] = int(named[3]), True
    if not held.get(kind, True):
        raise InputError(f"{checkpoint.file} says it is {kind}, but holds no {_needs(kind)}")
    _check_consistent(checkpoint, kind, held)
    if kind == "jumprelu":
        return SAEKind(kind, threshold=threshold)
    return SAEKind(kind, _checked_k(checkpoint, k, d_sae)) if kind == "topk" else SAEKind(kind)


def subtracts_of(checkpoint: Checkpoint, tensors: Tensors) -> bool:
    """Whether the output bias is also subtracted from the input.

    Raises InputError if that is unknown, or stated in contradictory ways.
    """
    said = _said_of_bias(checkpoint, tensors)
    if len({*said.values()}) > 1:
        raise InputError(
            f"{checkpoint.file} has {' and '.join(said)}, which contradict each other about "
            f"whether the decoder's bias is also subtracted from the input: if the first is wrong, "
            f"write {ignoring(next(iter(said)).split(':')[0])}"
        )
    if "before" in tensors and "after" in tensors:
        return False
    if said:
        return next(iter(said.values()))
    if "after" not in tensors:
        return True
    name, bias = tensors["after"]
    if not bias.any():
        return False
    if {"expansion_factor", "normalize_decoder", "k"} <= set(checkpoint.settings):
        return True  # sparsify
    if is_gemma_scope(checkpoint) or qwen_scope(checkpoint.file):
        return False
    raise InputError(
        f"{checkpoint.file} does not say whether {name} is also subtracted from the input: write "
        f'"apply_b_dec_to_input": true or false {WRITE}'
    )


def _said_of_bias(checkpoint: Checkpoint, tensors: Tensors) -> dict[str, bool]:
    """What settings, dictionary_learning's class and the bias's name say of its subtraction."""
    settings, said = checkpoint.settings, dict[str, bool]()
    for key in SUBTRACTS_KEYS:
        if (value := settings.get(key)) is None:
            continue
        if (subtracts := truth(value)) is None:
            raise InputError(f"{checkpoint.file} has {key}: {value}, which must be true or false")
        said[f"{key}: {value}"] = subtracts
    dict_class = settings.get("dict_class")
    if _plain(dict_class) in SUBTRACTED:
        said[f"dict_class: {dict_class}"] = SUBTRACTED[_plain(dict_class)]
    before, after = tensors.get("before"), tensors.get("after")
    if before is not None and before[0] == "pre_bias" and after is None:
        said["pre_bias: a tensor"] = True
    if before is not None and after is not None and not before[1].equal(after[1]) and said:
        said[f"{before[0]}: a different tensor from {after[0]}"] = False
    return said


def check_input_norm(checkpoint: Checkpoint, kind: SAEKind, normalisation: Normalisation) -> bool:
    """Whether to apply OpenAI's LayerNorm, which its TopK files do not state.

    Raises InputError for a TopK SAE that only resembles OpenAI's.
    """
    alike = ("pre_bias", "latent_bias", "stats_last_nonzero")
    if normalisation.stated or kind.architecture != "topk":
        return False
    if not any(name in checkpoint.weights for name in alike):
        return False
    if checkpoint.settings.get("activation") == "TopK" and alike[2] in checkpoint.weights:
        return True
    raise InputError(
        f"{checkpoint.file} resembles OpenAI's TopK SAEs, which normalise their input but do "
        f'not record it: write "normalize_activations": "layer_norm" or "none" {WRITE}'
    )


def is_gemma_scope(checkpoint: Checkpoint) -> bool:
    """Whether the file has the name and the contents of a Gemma Scope file."""
    names = {"w_enc", "w_dec", "b_enc", "b_dec", "threshold"}
    return checkpoint.file.stem == "params" and names == set(checkpoint.weights)


def _stated(checkpoint: Checkpoint) -> dict[str, str]:
    """The settings that name a kind or an activation function, as plain words."""
    keys = [key for key in ARCHITECTURE_KEYS if isinstance(checkpoint.settings.get(key), str)]
    words = {key: _plain(checkpoint.settings[key]) for key in keys}
    trainer = _plain(checkpoint.settings.get("trainer_class"))
    return words if {*words.values()} - {*SAYS_NOTHING} else words | {"trainer_class": trainer}


def _plain(word: Any) -> str:
    return re.sub(r"[^a-z0-9]", "", str(word or "").lower())


def _kind_in_settings(checkpoint: Checkpoint) -> str | None:
    """The kind that the settings agree on, if they name one."""
    words = {key: (KINDS | TRAINERS).get(word) for key, word in _stated(checkpoint).items()}
    kinds = {kind: key for key, kind in words.items() if kind}
    precise = [kind for kind in kinds if kind != "standard"]
    if len(precise) > 1:
        both = [f"{kinds[kind]}: {checkpoint.settings[kinds[kind]]}" for kind in precise[:2]]
        raise InputError(
            f"{checkpoint.file} has {' and '.join(both)}, which are different kinds of SAE: if the "
            f"first is right, write {ignoring(kinds[precise[1]])}"
        )
    return next(iter(precise or kinds), None)


def _implied(checkpoint: Checkpoint, held: dict[str, bool]) -> str:
    """The kind that the format or the file's contents imply."""
    if qwen_scope(checkpoint.file):
        return "topk"
    if held["topk"] and held["jumprelu"]:
        raise InputError(
            f"{checkpoint.file} holds both k and threshold: choose one with "
            f'"architecture": "topk" or "architecture": "jumprelu" {WRITE}'
        )
    if found := next((name for name, has in held.items() if has), None):
        return found
    raise InputError(
        f"{checkpoint.file} does not say which kind of SAE it is: write "
        f'"architecture": "standard" (ReLU), or "architecture": "topk" and "k": NUMBER, {WRITE}'
    )


def _needs(kind: str) -> str:
    return {
        "topk": f'k: write "k": NUMBER {WRITE}',
        "jumprelu": f'threshold: write "threshold": NUMBER {WRITE}',
        "gated": "r_mag",
    }[kind]


def _check_consistent(checkpoint: Checkpoint, kind: str, held: dict[str, bool]) -> None:
    """Raise InputError for a threshold or gate that the kind has no use for."""
    unused = {"jumprelu": "threshold", "gated": "r_mag"}
    spare = next((name for other, name in unused.items() if held[other] and other != kind), None)
    if spare == "threshold" and kind == "topk":  # dictionary_learning's TopK keeps one for later
        return
    if spare is not None:
        raise InputError(
            f"{checkpoint.file} says it is {kind}, but holds {spare}: one of the two is wrong"
        )


def _k(checkpoint: Checkpoint) -> Any:
    """The number of active features, if stated. Raises InputError for two."""
    found = {key: checkpoint.settings.get(key) for key in ("k", "topk", "top_k")}
    stated = {key: k for key, k in found.items() if k is not None and not isinstance(k, str)}
    if len({*stated.values()}) > 1:
        listed = " and ".join(f"{key}: {k}" for key, k in stated.items())
        raise InputError(
            f"{checkpoint.file} has {listed}: if the first is right, write {ignoring([*stated][1])}"
        )
    return next(iter(stated.values()), None)


def _checked_k(checkpoint: Checkpoint, k: Any, d_sae: int) -> int:
    if isinstance(k, bool) or not isinstance(k, int | float) or k != int(k) or not 1 <= k <= d_sae:
        raise InputError(
            f"{checkpoint.file}: k must be a whole number from 1 to {d_sae}, not {k!r}"
        )
    return int(k)


def _threshold(
    checkpoint: Checkpoint, tensors: Tensors, d_sae: int, scale: float
) -> Float[Tensor, " d_sae"] | None:
    """A threshold per feature. dictionary_learning stores a single negative number for none."""
    if "threshold" in tensors:
        name, value = tensors["threshold"]
        value = value.exp() if name.startswith("log_") else value
        return None if len(value) == 1 and float(value) < 0 else value.expand(d_sae)
    number = checkpoint.settings.get("threshold")
    raw = checkpoint.settings.get("jump_relu_threshold")  # of Llama Scope, in the units of x
    if is_number(number):
        return torch.full((d_sae,), float(number))
    if not is_number(raw) or not (raw > 0 or "jumprelu" in _stated(checkpoint).values()):
        return None
    return torch.full((d_sae,), float(raw) / scale)
