"""Steering done independently: a plain PyTorch hook on the Hugging Face model."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

Change = Callable[[torch.Tensor], torch.Tensor]


def hugging_face(folder: Path) -> Any:
    """The checkpoint as a Hugging Face model in float32."""
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()


@contextlib.contextmanager
def resid_pre_changed(model: Any, layer: int, change: Change) -> Iterator[None]:
    """Pass the input of a decoder layer through `change`."""

    def hook(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            return (change(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": change(kwargs["hidden_states"])}

    handle = model.model.layers[layer].register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@torch.no_grad()
def last_logits(model: Any, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Hugging Face's logits at the last position of a left-padded batch."""
    return model(input_ids=tokens, attention_mask=mask.long()).logits[:, -1].float()
