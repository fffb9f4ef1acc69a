"""Refuse what a checkpoint holds and nothing reads, if it may change what the SAE computes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from saelens_steer.errors import InputError
from saelens_steer.sae.conversion.checkpoint import is_number

CHANGING = re.compile(
    r"scal|norm|cent(er|re|ring)|standardi|whiten"
    r"|^(std|mean|var)$|^(act\w*|data\w*|input\w*|x)_(std|mean|var)$"
)
"""Names of settings that may say how the input is scaled or centred."""
HARMLESS = frozenset(
    (
        *("normalize_decoder", "normalise_decoder", "normalize_sae_decoder", "norm_decoder"),
        *("decoder_unit_norm", "unit_norm_decoder", "set_decoder_norm_to_unit_norm"),
        *("constrain_decoder_norm", "decoder_exactly_fixed_norm", "decoder_heuristic_init_norm"),
        *("decoder_init_norm", "decoder_norm_init", "init_decoder_norm", "init_encoder_norm"),
        *("init_scale", "init_encoder_scale", "scale_sparsity_penalty_by_decoder_norm"),
        *("mse_loss_normalization", "normalize_mse", "normalize_loss", "noise_scale"),
        *("jumprelu_tanh_scale", "n_batches_for_norm_estimate"),
        *("finetuning_scaling_factor", "lp_norm", "sparsity_norm", "lr_scale", "lr_scaling"),
        *("grad_norm", "max_grad_norm", "clip_grad_norm", "grad_clip_norm", "gradient_clip_norm"),
    )
)
"""The same of weights at their start or in training, of losses and of gradients."""
NO = ("none", "no", "null", "", "false", "inference")
OF_OTHERS = re.compile(r"(^|[._])(lm|llm|language_model|model_cfg|model_config|tokenizer|wandb)\.")
"""Nested configs of other things than the SAE."""


def changing(settings: Mapping[str, Any], read: Iterable[str]) -> Iterator[tuple[str, Any]]:
    """The settings that may scale or centre the input, and are not in `read`."""
    known = HARMLESS | set(read)
    for key, value in settings.items():
        name = key.rpartition(".")[2]
        inside = key.startswith("decoder.") or OF_OTHERS.search(key)
        if key in known or name in HARMLESS or inside or not CHANGING.search(name.lower()):
            continue
        if value not in (0, 1) if is_number(value) else str(value).lower() not in NO:
            yield key, value


def check_tensors(file: Path, beside: Mapping[str, Tensor], sizes: tuple[int, int]) -> None:
    """Raise InputError for a tensor outside the state dict that looks like a parameter."""
    for name, tensor in beside.items():
        parameter = bool({*tensor.shape} & {*sizes}) or CHANGING.search(name)
        if tensor.numel() > 1 and parameter and not OF_OTHERS.search(name):
            raise InputError(
                f"{file} holds {name} {list(tensor.shape)} beside the SAE's weights, which may "
                "change what the SAE computes: rename it activation_mean or activation_norm (which "
                f"divides the input) if it is one of these, or write {ignoring(name)} if it "
                "changes nothing"
            )


def ignoring(*names: str) -> str:
    """The line that leaves out settings and tensors, and where to write it."""
    return f'"ignore": {json.dumps(names)} into a config.json beside it'
