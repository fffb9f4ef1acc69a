"""Which checkpoints can be loaded, and TransformerLens's config for each.

A new architecture is one entry of `CONFIG_BUILDERS`: a function from the checkpoint folder
to a HookedTransformerConfig. The parity proof then decides whether it is right.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig
from transformer_lens.loading_from_pretrained import get_pretrained_model_config
from transformers import AutoConfig, PretrainedConfig

from saelens_steer.errors import InputError

MAX_DEFAULT_N_CTX = 4096
ConfigBuilder = Callable[[Path, PretrainedConfig, torch.dtype], HookedTransformerConfig]


def by_transformer_lens(
    folder: Path, config: PretrainedConfig, dtype: torch.dtype
) -> HookedTransformerConfig:
    """TransformerLens's own translation, reached through a folder whose name says nothing.

    It dispatches on words in the path ("llama", "gemma"), so it is shown config.json alone,
    in a neutral folder.
    """
    with tempfile.TemporaryDirectory(prefix="cfg-") as neutral:
        if any(word in neutral.lower() for word in ("llama", "gemma")):
            raise InputError(f"Set TMPDIR to a folder not named after a model, unlike {neutral}.")
        shutil.copyfile(folder / "config.json", Path(neutral) / "config.json")
        cfg = get_pretrained_model_config(
            neutral, hf_cfg=config.to_dict(), dtype=dtype, first_n_layers=config.num_hidden_layers
        )
    cfg.rotary_base = rope_theta(config)
    return cfg


CONFIG_BUILDERS: dict[str, ConfigBuilder] = {"Qwen3ForCausalLM": by_transformer_lens}


def hooked_config(
    folder: Path, config: PretrainedConfig, dtype: torch.dtype
) -> HookedTransformerConfig:
    """TransformerLens's config for a checkpoint that `read_config` accepted."""
    return CONFIG_BUILDERS[(config.architectures or ["none"])[0]](folder, config, dtype)


def read_config(folder: Path) -> PretrainedConfig:
    """The checkpoint's config; InputError for an architecture or variant not supported."""
    try:
        raw = json.loads((folder / "config.json").read_text())
        architecture = (raw.get("architectures") or ["none"])[0]
    except (ValueError, AttributeError) as e:
        raise InputError(f"The file {folder / 'config.json'} is not a model's config.json.") from e
    if architecture not in CONFIG_BUILDERS:
        known = ", ".join(CONFIG_BUILDERS)
        raise InputError(f"The architecture {architecture} is not supported; use one of: {known}.")
    config = AutoConfig.from_pretrained(folder)
    _refuse_variants(config)
    return config


def _refuse_variants(config: PretrainedConfig) -> None:
    """Refuse what TransformerLens would drop without a word."""
    rope = getattr(config, "rope_parameters", None) or {}
    unsupported = {
        "quantized weights": getattr(config, "quantization_config", None) is not None,
        "sliding-window attention": bool(getattr(config, "use_sliding_window", False)),
        "scaled rotary embeddings": rope.get("rope_type", "default") != "default",
        "attention biases": bool(getattr(config, "attention_bias", False)),
    }
    for what, present in unsupported.items():
        if present:
            raise InputError(f"This checkpoint has {what}, not supported; use one without.")


def rope_theta(config: PretrainedConfig) -> float:
    """The checkpoint's rotary base; transformers 5 keeps it in `rope_parameters`."""
    rope: dict[str, Any] = getattr(config, "rope_parameters", None) or {}
    return float(rope.get("rope_theta", getattr(config, "rope_theta", 10_000.0)))


def context_length(config: PretrainedConfig, n_ctx: int | None) -> int:
    """The positions the model is set up for: asked for, or the model's own up to 4,096."""
    longest = int(config.max_position_embeddings)
    if n_ctx is None:
        return min(longest, MAX_DEFAULT_N_CTX)
    if not 0 < n_ctx <= longest:
        raise InputError(f"n_ctx={n_ctx} is out of range; choose 1 to {longest} for this model.")
    return n_ctx
