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
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from saelens_steer.errors import InputError
from saelens_steer.sae.conversion.checkpoint import Checkpoint
from saelens_steer.sae.conversion.hooks import names_of, qwen_scope
from saelens_steer.sae.conversion.normalisation import Normalisation
from saelens_steer.sae.conversion.tensors import Tensors

ARCHITECTURE_KEYS = (
    *("architecture", "dict_class", "sae_type", "sae_class"),
    *("activation", "activation_fn", "activation_fn_str", "act_fn"),
)
KINDS = (
    ("batchtopk", "jumprelu"),
    ("jumprelu", "jumprelu"),
    ("topk", "topk"),
    ("gated", "gated"),
    ("relu", "standard"),
    ("standard", "standard"),
    ("vanilla", "standard"),
    ("autoencoder", "standard"),
)
"""Text in a setting of ARCHITECTURE_KEYS → architecture. The first match wins, so that
`activation_fn: topk` overrides `architecture: standard`. BatchTopK SAEs use their threshold."""
REFUSED = re.compile(
    "transcoder|crosscoder|clt|temporal|groupmax|abstopk|matchingpursuit|lorsa|molt|mixcoder|tanh|leaky"
)
"""The same for unsupported kinds, whose names may contain the name of a kind above."""
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
NAMED_K = re.compile(r"(?<!average)(?<![a-z0-9])l0[_-](\d+)(?![a-z0-9])")
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
    if other := [key for key in UNSUPPORTED if settings.get(key) is True]:
        raise InputError(f"{file} has {other[0]}: true, which SAELens does not support")
    for key, word in _stated(checkpoint).items():
        if REFUSED.search(word) or not (word in SAYS_NOTHING or _kind_of(word)):
            raise InputError(
                f"{file} has {key}: {settings[key]}, but only relu, topk, batchtopk, jumprelu and "
                "gated SAEs can be converted"
            )
    if str(settings.get("postact_fn", "relu")).lower() != "relu":
        raise InputError(f"{file} has postact_fn: {settings['postact_fn']}: only ReLU is supported")


def kind_of(checkpoint: Checkpoint, tensors: Tensors, d_sae: int, scale: float) -> SAEKind:
    """The kind in the settings, or else the one that k, thresholds and gates belong to.

    `scale` divides a threshold in the units of x. Raises InputError for a kind that stays unknown,
    a missing k or threshold, and an SAE that may be either TopK or JumpReLU.
    """
    threshold = _threshold(checkpoint, tensors, d_sae, scale)
    k = _k(checkpoint)
    held = {"topk": k is not None, "jumprelu": threshold is not None, "gated": "r_mag" in tensors}
    kinds = [_kind_of(word) for word in _stated(checkpoint).values()]
    order = [name for _, name in KINDS]
    kind = min(filter(None, kinds), key=order.index, default=None) or _implied(checkpoint, held)
    if kind == "topk" and k is None:
        k = _named_k(checkpoint.file)
        held["topk"] = k is not None
    if not held.get(kind, True):
        raise InputError(f"{checkpoint.file} says it is {kind}, but holds no {_needs(kind)}")
    _check_consistent(checkpoint, kind, held)
    if kind == "jumprelu":
        return SAEKind(kind, threshold=threshold)
    return SAEKind(kind, _checked_k(checkpoint, k, d_sae)) if kind == "topk" else SAEKind(kind)


def subtracts_of(checkpoint: Checkpoint, tensors: Tensors) -> bool:
    """Whether the output bias is also subtracted from the input. Raises InputError if unknown."""
    stated = checkpoint.stated(*SUBTRACTS_KEYS)
    if isinstance(stated, bool):
        return stated
    if "after" not in tensors:
        return True
    name, bias = tensors["after"]
    if "before" in tensors or not bias.any():
        return False
    dict_class = _plain(checkpoint.settings.get("dict_class"))
    if dict_class in SUBTRACTED:
        return SUBTRACTED[dict_class]
    if {"expansion_factor", "normalize_decoder", "k"} <= set(checkpoint.settings):
        return True  # sparsify
    if is_gemma_scope(checkpoint) or qwen_scope(checkpoint.file):
        return False
    raise InputError(
        f"{checkpoint.file} does not say whether {name} is also subtracted from the input: write "
        f'"apply_b_dec_to_input": true or false {WRITE}'
    )


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
        f'not state it: write "normalize_activations": "layer_norm" or "none" {WRITE}'
    )


def is_gemma_scope(checkpoint: Checkpoint) -> bool:
    """Whether the file has the name and the contents of a Gemma Scope file."""
    names = {"w_enc", "w_dec", "b_enc", "b_dec", "threshold"}
    return checkpoint.file.stem == "params" and names == set(checkpoint.weights)


def _stated(checkpoint: Checkpoint) -> dict[str, str]:
    """The settings that name a kind or an activation function, as plain words."""
    keys = (key for key in ARCHITECTURE_KEYS if isinstance(checkpoint.settings.get(key), str))
    return {key: _plain(checkpoint.settings[key]) for key in keys}


def _plain(word: Any) -> str:
    return re.sub(r"[^a-z0-9]", "", str(word or "").lower())


def _kind_of(word: str) -> str | None:
    if word in SAYS_NOTHING:
        return None
    return next((kind for part, kind in KINDS if part in word), None)


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
    stated = checkpoint.stated("k", "topk", "top_k")
    return None if isinstance(stated, str) else stated


def _named_k(file: Path) -> int | None:
    """k of a TopK SAE in the nearest name such as `L0_50`; not an average."""
    found = (NAMED_K.search(name.lower().replace("average_", "average")) for name in names_of(file))
    return next((int(match[1]) for match in found if match), None)


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
    number = checkpoint.stated("threshold")
    raw = checkpoint.stated("jump_relu_threshold")  # of Llama Scope, in the units of x
    if _is_number(number):
        return torch.full((d_sae,), float(number))
    if not _is_number(raw) or not (raw > 0 or "jumprelu" in _stated(checkpoint).values()):
        return None
    return torch.full((d_sae,), float(raw) / scale)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
