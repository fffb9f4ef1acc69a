"""Small random stand-ins of the models that SAELens's releases were trained on."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMultimodalLM,
    PreTrainedTokenizerBase,
)

from saelens_steer.model import load_model
from saelens_steer.model.model_class import Model
from saelens_steer.model.names import hub_ids
from saelens_steer.model.snapshot import TINY, find_snapshot
from saelens_steer.model.tokenizer import read_tokenizer

LAYERS = 4
PLAIN: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
}
GROUPED: dict[str, Any] = {**PLAIN, "num_key_value_heads": 2, "head_dim": 16}
EXPERTS: dict[str, Any] = {
    **GROUPED,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
}
HYBRID: dict[str, Any] = {
    "layer_types": ["linear_attention"] * 3 + ["full_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
LLAMA3: dict[str, Any] = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN: dict[str, Any] = {
    "rope_type": "yarn",
    "rope_theta": 150_000.0,
    "factor": 32.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "truncate": False,
    "original_max_position_embeddings": 64,
}
SLIDING: dict[str, Any] = {
    "layer_types": ["sliding_attention"] * 2 + ["full_attention", "sliding_attention"],
    "sliding_window": 5,
    "query_pre_attn_scalar": 16,
}


def _gemma3(**full: Any) -> dict[str, Any]:
    """Gemma 3's text model; `full` scales the rotary embeddings of its full-attention layers."""
    local = {"rope_type": "default", "rope_theta": 10_000.0}
    long = {"rope_type": "default", "rope_theta": 1_000_000.0, **full}
    rope = {"sliding_attention": local, "full_attention": long}
    return {**GROUPED, **SLIDING, "rope_parameters": rope}


VISION: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
QWEN_VISION: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "depth": 1,
    "num_heads": 2,
    "out_hidden_size": 32,
    "num_position_embeddings": 16,
    "patch_size": 4,
}
GPT_OSS = {**GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 5}

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("gpt2", {"n_embd": 32, "n_layer": LAYERS, "n_head": 4, "n_positions": 512}),
    "pythia": ("gpt_neox", {**PLAIN, "rotary_pct": 0.25, "use_parallel_residual": True}),
    "gemma": ("gemma", GROUPED),
    "gemma2": (
        "gemma2",
        {**GROUPED, **SLIDING, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
    ),
    "gemma3": ("gemma3_text", _gemma3()),
    "gemma3-multimodal": (
        "gemma3",
        {
            "text_config": _gemma3(rope_type="linear", factor=8.0),
            "vision_config": VISION,
            "mm_tokens_per_image": 4,
        },
    ),
    "llama3": ("llama", GROUPED),
    "llama3.1": ("llama", {**GROUPED, "rope_parameters": LLAMA3}),
    "mistral": ("mistral", {**GROUPED, "sliding_window": 5}),
    "qwen2": ("qwen2", {k: v for k, v in GROUPED.items() if k != "head_dim"}),
    "qwen3": ("qwen3", GROUPED),
    "qwen3-moe": ("qwen3_moe", EXPERTS),
    "qwen3.5": ("qwen3_5", {"text_config": {**GROUPED, **HYBRID}, "vision_config": QWEN_VISION}),
    "qwen3.5-moe": (
        "qwen3_5_moe",
        {
            "text_config": {**EXPERTS, **HYBRID, "shared_expert_intermediate_size": 24},
            "vision_config": QWEN_VISION,
        },
    ),
    "gpt-oss": ("gpt_oss", {**GPT_OSS, "rope_parameters": YARN}),
}
"""transformers' model type, and settings that keep the variants of the checkpoints on the hub."""

MODELS: dict[str, str] = {
    "gpt2": "gpt2",
    "EleutherAI/pythia-70m-deduped": "pythia",
    "google/gemma-2b": "gemma",
    "google/gemma-2b-it": "gemma",
    **dict.fromkeys([f"google/gemma-2-{name}" for name in ("2b", "9b", "9b-it", "27b")], "gemma2"),
    **dict.fromkeys(
        [f"google/gemma-3-{n}" for n in ("270m", "270m-it", "1b-pt", "1b-it")], "gemma3"
    ),
    **dict.fromkeys(
        [f"google/gemma-3-{size}-{kind}" for size in ("4b", "12b", "27b") for kind in ("pt", "it")],
        "gemma3-multimodal",
    ),
    "meta-llama/Meta-Llama-3-8B-Instruct": "llama3",
    **dict.fromkeys(
        [
            "meta-llama/Llama-3.1-8B",
            "meta-llama/Llama-3.1-8B-Instruct",
            "meta-llama/Llama-3.3-70B-Instruct",
            "deepseek-ai/DeepSeek-R1-Distill-Llama-8B",
        ],
        "llama3.1",
    ),
    "mistralai/Mistral-7B-v0.1": "mistral",
    "Qwen/Qwen2.5-7B-Instruct": "qwen2",
    **dict.fromkeys([f"Qwen/Qwen3-{n}B" for n in ("0.6", "1.7", "4", "8", "14")], "qwen3"),
    **dict.fromkeys([f"Qwen/Qwen3-{n}B-Base" for n in ("1.7", "8")], "qwen3"),
    "Qwen/Qwen3-30B-A3B-Base": "qwen3-moe",
    **dict.fromkeys(
        ["Qwen/Qwen3.5-2B-Base", "Qwen/Qwen3.5-9B-Base", "Qwen/Qwen3.5-27B"], "qwen3.5"
    ),
    "Qwen/Qwen3.5-35B-A3B-Base": "qwen3.5-moe",
    "openai/gpt-oss-20b": "gpt-oss",
}
"""Hub id → its key in KINDS."""


def hub_id(name: str) -> str | None:
    """The hub id in MODELS that a name stands for; None if load_model knows no such name."""
    return next((found for found in hub_ids(name) if found in MODELS), None)


def save_small(kind: str, folder: Path, tokenizer: PreTrainedTokenizerBase | None = None) -> Path:
    """Write a random checkpoint of this kind, as it would lie on the hub."""
    tokenizer = tokenizer or read_tokenizer(find_snapshot(TINY), TINY)
    sizes = {"vocab_size": len(tokenizer), "pad_token_id": None, "initializer_range": 0.2}
    return write_random(*KINDS[kind], sizes, folder, tokenizer)


def write_random(
    model_type: str,
    settings: dict[str, Any],
    text: dict[str, Any],
    folder: Path,
    tokenizer: PreTrainedTokenizerBase,
    *,
    seed: int = 0,
    change: Callable[[Any], None] | None = None,
) -> Path:
    """Write a random checkpoint; `text` are more settings of the text model.

    `change` alters the model before it is saved, with the same random numbers for the same seed.
    """
    nested = "text_config" in settings
    scale = {"initializer_range": text["initializer_range"]}
    inner = {"text_config": {**settings["text_config"], **text}, **scale} if nested else text
    config = AutoConfig.for_model(model_type, **{**settings, **inner})
    build = AutoModelForMultimodalLM if nested else AutoModelForCausalLM
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build.from_config(config)
        if change:
            change(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Path(folder)


@functools.cache
def small_model(kind: str) -> Model:
    """The model of this kind as `load_model` loads it."""
    with tempfile.TemporaryDirectory() as folder:
        return load_model(save_small(kind, Path(folder)), device="cpu")
