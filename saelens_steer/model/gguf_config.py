"""The config of a model in a GGUF file: every key and every tensor is accounted for, or refused.

A key of the architecture goes into the config, must equal what the config says, or must have no
effect; llama.cpp's meaning of each was read in its load_hparams. Where a file leaves a key out,
llama.cpp's value holds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.pytorch_utils import Conv1D

from saelens_steer.errors import InputError
from saelens_steer.model.gguf import GgufFile, gguf_package
from saelens_steer.model.gguf_rope import rope_of_file

Settings = dict[str, Any]
HARMLESS = ("GGUF.", "general.", "tokenizer.", "quantize.", "split.")
"""Keys that decide no arithmetic: about the file, its vocabulary (read by transformers) and parts."""
DECIDES = re.compile(r"rope|freq|scal|window|cap|expert|eps|norm|head|alibi|clamp|factor|lora")
"""Words in keys of other namespaces that may not be ignored."""
NO_EFFECT: dict[str, tuple[Any, ...]] = {
    "attention.causal": (True,),
    "attention.clamp_kqv": (0.0,),
    "attention.max_alibi_bias": (0.0,),
    "attention.shared_kv_layers": (0,),
    "attn_logit_softcapping": (0.0,),
    "embedding_scale": (0.0, 1.0),
    "expert_count": (0,),
    "expert_used_count": (0,),
    "final_logit_softcapping": (0.0,),
    "leading_dense_block_count": (0,),
    "logit_scale": (0.0, 1.0),
    "nextn_predict_layers": (0,),
    "pooling_type": (0,),
    "residual_scale": (0.0, 1.0),
    "rope.scaling.finetuned": (True, False),
    "tensor_data_layout": ("Meta AI original pth",),
    "use_parallel_residual": (False,),
}
"""Keys that every architecture may state, with the values that change nothing."""
REQUIRED = object()


class Keys:
    """The keys of a file's architecture; each leaves when it is read."""

    def __init__(self, file: GgufFile) -> None:
        self.file, self.prefix = file, f"{file.architecture}."
        self.left = {
            key.removeprefix(self.prefix): value
            for key, value in file.values.items()
            if key.startswith(self.prefix)
        }

    def take(self, name: str, default: Any = REQUIRED) -> Any:
        """The value of a key; one that is equal for all layers counts as a single one."""
        value = self.left.pop(name, default)
        if value is REQUIRED:
            raise InputError(f"{self.file.path} lacks {self.prefix}{name}: convert it again")
        if isinstance(value, list) and value and name != "attention.sliding_window_pattern":
            if len(set(value)) > 1:
                raise self.refused(name, value)
            return value[0]
        return value

    def expect(self, name: str, *allowed: Any) -> None:
        """InputError if the file states a value that differs from all of these."""
        if (value := self.take(name, None)) is None:
            return
        if not any(_equal(value, one) for one in allowed):
            raise self.refused(name, value)

    def refused(self, name: str, value: Any) -> InputError:
        """The error for a key that the model cannot follow."""
        return InputError(
            f"{self.file.path} states {self.prefix}{name} = {value}, which cannot be followed: use "
            "the checkpoint in Hugging Face format"
        )


def _equal(value: Any, other: Any) -> bool:
    if isinstance(value, str) or isinstance(other, str):
        return value == other
    return math.isclose(value, other, rel_tol=1e-6)


@dataclass(frozen=True)
class Architecture:
    """How one of llama.cpp's architectures is called in transformers, and what it adds."""

    model_type: str
    settings: Callable[[Keys], Settings]


def gguf_config(file: GgufFile) -> PretrainedConfig:
    """The config; InputError unless every key and tensor of the file is part of the model."""
    if file.architecture not in ARCHITECTURES:
        raise InputError(
            f"{file.path} has the architecture {file.architecture}, which cannot be loaded from a "
            "GGUF file: use its checkpoint in Hugging Face format"
        )
    architecture, keys = ARCHITECTURES[file.architecture], Keys(file)
    settings = {**_common(keys), **architecture.settings(keys)}
    _refuse_rest(keys)
    config = CONFIG_MAPPING[architecture.model_type](**settings)
    config.architectures = [MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[architecture.model_type]]
    _account_for_tensors(file, config)
    return config


def _common(keys: Keys) -> Settings:
    """What every architecture states, in the words that its config understands."""
    file, shapes = keys.file, keys.file.shapes
    if "token_embd.weight" not in shapes:
        raise InputError(f"{file.path} lacks the tensor token_embd.weight: download it again")
    vocabulary = shapes["token_embd.weight"][0]
    keys.expect("vocab_size", vocabulary)
    ids = {name: file.values.get(f"tokenizer.ggml.{key}_token_id") for name, key in SPECIAL.items()}
    return {
        "num_hidden_layers": keys.take("block_count"),
        "hidden_size": keys.take("embedding_length"),
        "num_attention_heads": keys.take("attention.head_count"),
        "max_position_embeddings": keys.take("context_length"),
        "vocab_size": vocabulary,
        "tie_word_embeddings": "output.weight" not in shapes,
        **ids,
    }


SPECIAL = {"bos_token_id": "bos", "eos_token_id": "eos", "pad_token_id": "padding"}


def _decoder(keys: Keys) -> Settings:
    """A decoder with RMS norms, a gated MLP and rotary embeddings over whole heads."""
    width = _head_width(keys)
    keys.expect("rope.dimension_count", width)
    keys.expect("attention.scale", 0.0, width**-0.5)
    return {
        "head_dim": width,
        # transformers' reader leaves queries and keys of a Llama permuted without it
        "num_key_value_heads": keys.take("attention.head_count_kv"),
        "intermediate_size": keys.take("feed_forward_length"),
        "rms_norm_eps": keys.take("attention.layer_norm_rms_epsilon"),
    }


def _head_width(keys: Keys) -> int:
    heads, d_model = (keys.file.values[keys.prefix + n] for n in HEADS_AND_WIDTH)
    heads = max(heads) if isinstance(heads, list) else heads
    width = keys.take("attention.key_length", d_model // max(heads, 1))
    keys.expect("attention.value_length", width)
    return width


HEADS_AND_WIDTH = ("attention.head_count", "embedding_length")


def _plain(keys: Keys) -> Settings:
    """Llama, Qwen 2.5 and Qwen 3: a decoder that sees its whole context."""
    settings = _decoder(keys)
    _expect_no_window(keys)
    return {**settings, "rope_parameters": rope_of_file(keys, settings["head_dim"])}


def _llama(keys: Keys) -> Settings:
    shapes = keys.file.shapes
    biases = {
        "attention_bias": "blk.0.attn_q.bias" in shapes,
        "mlp_bias": "blk.0.ffn_up.bias" in shapes,
    }
    return {**_plain(keys), **biases}


def _expect_no_window(keys: Keys) -> None:
    """A window is harmless if it is no shorter than the context."""
    window = keys.take("attention.sliding_window", 0)
    if 0 < window < keys.file.values[keys.prefix + "context_length"]:
        raise keys.refused("attention.sliding_window", window)


def _gemma(keys: Keys, period: int, largest: int) -> Settings:
    """Gemma 2 and 3; queries are scaled by the width of a head, or in the largest by d_model/n."""
    heads, d_model = (keys.file.values[keys.prefix + n] for n in HEADS_AND_WIDTH)
    n_layers = keys.file.values[keys.prefix + "block_count"]
    settings = _decoder(keys)
    scalar = d_model // heads if n_layers == largest else settings["head_dim"]
    window = keys.take("attention.sliding_window", 0)
    pattern = keys.take("attention.sliding_window_pattern", period)
    sliding = _sliding(keys, pattern, n_layers) if window else [False] * n_layers
    return {
        **settings,
        "query_pre_attn_scalar": scalar,
        "sliding_window": window or None,
        "layer_types": ["sliding_attention" if s else "full_attention" for s in sliding],
    }


def _sliding(keys: Keys, pattern: Any, n_layers: int) -> list[bool]:
    """Which layers slide: all but every n-th, or as listed."""
    if isinstance(pattern, list):
        if len(pattern) != n_layers:
            raise keys.refused("attention.sliding_window_pattern", pattern)
        return [bool(slides) for slides in pattern]
    return [pattern == 0 or layer % pattern < pattern - 1 for layer in range(n_layers)]


def _gemma2(keys: Keys) -> Settings:
    settings = _gemma(keys, period=2, largest=46)
    if settings["sliding_window"] is None:
        raise InputError(f"{keys.file.path} lacks gemma2.attention.sliding_window: convert it again")
    rope = rope_of_file(keys, settings["head_dim"])
    keys.expect("rope.freq_base_swa", rope["rope_theta"])
    caps = {name: keys.take(name) or None for name in CAPS}
    return {**settings, "rope_parameters": rope, **caps}


CAPS = ("attn_logit_softcapping", "final_logit_softcapping")


def _gemma3(keys: Keys) -> Settings:
    settings = _gemma(keys, period=6, largest=62)
    local = {"rope_type": "default", "rope_theta": keys.take("rope.freq_base_swa", 10_000.0)}
    rope = rope_of_file(keys, settings["head_dim"])
    return {
        **settings,
        "rope_parameters": {"full_attention": rope, "sliding_attention": local},
        "final_logit_softcapping": keys.take("final_logit_softcapping", 0.0) or None,
    }


def _phi3(keys: Keys) -> Settings:
    width = _head_width(keys)
    rotated = keys.take("rope.dimension_count", width)
    rope = rope_of_file(keys, rotated)
    return {
        "num_key_value_heads": keys.take("attention.head_count_kv"),
        "intermediate_size": keys.take("feed_forward_length"),
        "rms_norm_eps": keys.take("attention.layer_norm_rms_epsilon"),
        "sliding_window": keys.take("attention.sliding_window", 0) or None,
        "rope_parameters": {**rope, "partial_rotary_factor": rotated / width},
    }


def _gpt2(keys: Keys) -> Settings:
    keys.expect("attention.head_count_kv", keys.file.values["gpt2.attention.head_count"])
    context = keys.file.values["gpt2.context_length"]
    return {
        "n_positions": context,
        "n_inner": keys.take("feed_forward_length"),
        "layer_norm_epsilon": keys.take("attention.layer_norm_epsilon"),
    }


ARCHITECTURES: dict[str, Architecture] = {
    "llama": Architecture("llama", _llama),
    "qwen2": Architecture("qwen2", _plain),
    "qwen3": Architecture("qwen3", _plain),
    "gemma2": Architecture("gemma2", _gemma2),
    "gemma3": Architecture("gemma3_text", _gemma3),
    "phi3": Architecture("phi3", _phi3),
    "gpt2": Architecture("gpt2", _gpt2),
}
"""By llama.cpp's names. transformers reads no Gemma 1, OLMo, NeoX, Phi 2 or OPT."""


def _refuse_rest(keys: Keys) -> None:
    """InputError for a key that is neither in the config nor without effect."""
    for name, values in NO_EFFECT.items():
        keys.expect(name, *values)
    for name, value in keys.left.items():
        raise keys.refused(name, value)
    for key, value in keys.file.values.items():
        known = key.startswith((*HARMLESS, keys.prefix))
        if not known and DECIDES.search(key):
            raise InputError(
                f"{keys.file.path} states {key} = {value}, which belongs to no part of a "
                f"{keys.file.architecture} model: convert the checkpoint again"
            )


def _account_for_tensors(file: GgufFile, config: PretrainedConfig) -> None:
    """InputError unless the file's tensors are exactly the model's weights, in their shapes."""
    with torch.device("meta"):
        hf = AutoModelForCausalLM.from_config(config)
    expected = _weights(file, hf, config)
    if missing := sorted(expected.keys() - file.shapes.keys()):
        raise InputError(f"{file.path} lacks the tensor {missing[0]}: download it again")
    known = expected.keys() | {"rope_freqs.weight"}  # checked where the config was built
    if unknown := sorted(file.shapes.keys() - known):
        raise InputError(
            f"{file.path} holds the tensor {unknown[0]}, which a {file.architecture} model in "
            "transformers has no weight for: use the checkpoint in Hugging Face format"
        )
    for name, shape in expected.items():
        if file.shapes[name] != shape:
            raise InputError(
                f"the tensor {name} of {file.path} has the shape {file.shapes[name]} instead of "
                f"{shape}: convert the checkpoint again"
            )


def _weights(
    file: GgufFile, hf: PreTrainedModel, config: PretrainedConfig
) -> dict[str, tuple[int, ...]]:
    """The model's weights under their names in a GGUF file, with their shapes."""
    gguf = gguf_package()
    kinds = {name: kind for kind, name in gguf.MODEL_ARCH_NAMES.items()}
    names = gguf.get_tensor_name_map(kinds[file.architecture], config.num_hidden_layers)
    turned = {f"{name}.weight" for name, part in hf.named_modules() if isinstance(part, Conv1D)}
    found = {}
    for name, weight in hf.named_parameters():  # tied ones once
        stem, dot, end = name.rpartition(".")
        shape = tuple(weight.shape)
        found[f"{names.get_name(stem)}{dot}{end}"] = shape[::-1] if name in turned else shape
    return found
