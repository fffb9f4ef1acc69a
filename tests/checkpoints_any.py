"""Small random checkpoints of every architecture that loads, in Hugging Face format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from checkpoints import GEMMA, GEMMA_LINEAR, LLAMA3_ROPE, SMALL, small_tokenizer

from scripts.docs.small_models import write_random

DENSE: dict[str, Any] = {
    **{key: value for key, value in SMALL.items() if key not in ("head_dim", "rope_parameters")},
    "tie_word_embeddings": False,
}
"""A decoder with 4 heads of 8, 2 of them for keys and values."""

PLAIN_HEADS: dict[str, Any] = {**DENSE, "num_key_value_heads": 4}
EXPERTS: dict[str, Any] = {"num_experts": 4, "num_experts_per_tok": 2}
QWEN_EXPERTS: dict[str, Any] = {
    **DENSE,
    **EXPERTS,
    "moe_intermediate_size": 24,
    "shared_expert_intermediate_size": 24,
    "norm_topk_prob": True,
}
LINEAR_ATTENTION: dict[str, Any] = {
    "head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "layer_types": ["linear_attention", "linear_attention", "linear_attention", "full_attention"],
}
N_EMBD: dict[str, Any] = {"n_embd": 32, "n_layer": 4, "n_head": 4}

VISION: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}

BOS = "<|begin_of_text|>"
Checkpoint = tuple[str, dict[str, Any], str | None]
"""transformers' model type, the settings, and the BOS token that texts begin with."""

ARCHITECTURES: dict[str, Checkpoint] = {
    "gpt2": ("gpt2", {**N_EMBD, "n_positions": 128}, None),
    "neox": ("gpt_neox", {**PLAIN_HEADS, "rotary_pct": 0.25}, None),
    "neox-sequential": ("gpt_neox", {**PLAIN_HEADS, "use_parallel_residual": False}, None),
    "gpt-neo": (
        "gpt_neo",
        {
            "hidden_size": 32,
            "num_layers": 4,
            "num_heads": 4,
            "attention_types": [[["global", "local"], 2]],
            "window_size": 5,
            "max_position_embeddings": 128,
        },
        None,
    ),
    "gptj": ("gptj", {**N_EMBD, "n_positions": 128, "rotary_dim": 4}, None),
    "opt": (
        "opt",
        {
            "hidden_size": 32,
            "ffn_dim": 64,
            "word_embed_proj_dim": 32,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "max_position_embeddings": 128,
        },
        BOS,
    ),
    "bloom": ("bloom", {"hidden_size": 32, "n_layer": 4, "n_head": 4}, None),
    "phi": ("phi", {**PLAIN_HEADS, "partial_rotary_factor": 0.5}, None),
    "phi3": ("phi3", {**DENSE, "sliding_window": 5}, None),
    "phi3-partial": ("phi3", {**DENSE, "partial_rotary_factor": 0.5}, None),
    "mistral": ("mistral", {**DENSE, "sliding_window": 5}, BOS),
    "mistral-plain": ("mistral", {**DENSE, "sliding_window": None, "head_dim": 16}, BOS),
    "mixtral": ("mixtral", {**DENSE, "num_local_experts": 4, "num_experts_per_tok": 2}, BOS),
    "olmo": ("olmo", {**PLAIN_HEADS, "clip_qkv": 0.5}, None),
    "olmo2": ("olmo2", PLAIN_HEADS, None),
    "olmo2-grouped": ("olmo2", DENSE, None),
    "olmo3": ("olmo3", {**DENSE, "sliding_window": 5}, None),
    "olmoe": ("olmoe", {**PLAIN_HEADS, **EXPERTS}, None),
    "llama2": ("llama", PLAIN_HEADS, BOS),
    "llama3": ("llama", {**DENSE, "rope_parameters": LLAMA3_ROPE}, BOS),
    "gemma": ("gemma", {**DENSE, "head_dim": 16, "tie_word_embeddings": True}, "<bos>"),
    "gemma2": (
        "gemma2",
        {
            **DENSE,
            "head_dim": 16,
            "tie_word_embeddings": True,
            "sliding_window": 5,
            "query_pre_attn_scalar": 24,
            "attn_logit_softcapping": 3.0,
            "final_logit_softcapping": 2.0,
        },
        "<bos>",
    ),
    "gemma3": ("gemma3_text", {**SMALL, **GEMMA}, "<bos>"),
    "gemma3-multimodal": (
        "gemma3",
        {
            "text_config": {**SMALL, **GEMMA, "rope_parameters": GEMMA_LINEAR},
            "vision_config": VISION,
            "mm_tokens_per_image": 4,
        },
        "<bos>",
    ),
    "qwen1.5": ("qwen2", PLAIN_HEADS, None),
    "qwen2": ("qwen2", DENSE, None),
    "qwen3": ("qwen3", SMALL, None),
    "gpt-oss": (
        "gpt_oss",
        {
            **DENSE,
            "head_dim": 16,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "sliding_window": 5,
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 150_000.0,
                "factor": 4.0,
                "beta_fast": 32.0,
                "beta_slow": 1.0,
                "truncate": False,
                "original_max_position_embeddings": 128,
            },
        },
        None,
    ),
    "qwen2-moe": ("qwen2_moe", QWEN_EXPERTS, None),
    "qwen3-moe": ("qwen3_moe", {**QWEN_EXPERTS, "head_dim": 16}, None),
    "qwen3-next": ("qwen3_next", {**QWEN_EXPERTS, **LINEAR_ATTENTION}, None),
    "qwen3.5": ("qwen3_5_text", {**DENSE, **LINEAR_ATTENTION}, None),
    "smollm3": ("smollm3", {**DENSE, "no_rope_layers": [1, 1, 1, 0]}, None),
}
BRIDGED = (
    "olmo2-grouped", "qwen2-moe", "qwen3-moe", "qwen3-next", "qwen3.5", "smollm3",
)  # fmt: skip
"""Those that load as a TransformerBridge, whatever class was asked for."""
HOOKED = tuple(name for name in ARCHITECTURES if name not in BRIDGED)


def random_checkpoint(
    architecture: str, folder: Path, *, seed: int = 0, scale: float = 0.2, **changes: Any
) -> Path:
    """Write a random checkpoint with tokenizer to `folder`, with `changes` to its config.

    `architecture` is a key of `ARCHITECTURES`. Norms and biases are random too, so that a norm or
    an offset that is left out shows. `scale` is the standard deviation of the weights.
    """
    model_type, settings, bos = ARCHITECTURES[architecture]
    tokenizer = small_tokenizer(bos=bos)
    about = {
        "vocab_size": len(tokenizer) + 8,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "initializer_range": scale,
    }

    def change(model: Any) -> None:
        _randomise(model, scale, "gemma" in architecture)
        model.generation_config.eos_token_id = [tokenizer.eos_token_id, tokenizer.pad_token_id]

    text = {**about, **changes}
    return write_random(model_type, settings, text, folder, tokenizer, seed=seed, change=change)


@torch.no_grad()
def _randomise(model: Any, scale: float, scaled_embedding: bool) -> None:
    """Random norms and biases; an embedding that is scaled up must not outweigh the layers."""
    for name, weight in model.named_parameters():
        if weight.ndim == 1 and ("norm" in name or ".ln_" in name):
            weight.uniform_(-0.5, 0.5) if name.endswith("bias") else weight.add_(
                torch.empty_like(weight).uniform_(-0.5, 0.5)
            )
        elif name.endswith("bias"):
            weight.normal_(0.0, scale)
        elif scaled_embedding and "embed_tokens" in name:
            weight.mul_(0.2)
