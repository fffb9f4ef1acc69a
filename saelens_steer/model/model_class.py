"""TransformerLens's two model classes, both supported."""

from __future__ import annotations

from typing import Literal, TypeAlias

from transformer_lens import HookedTransformer
from transformer_lens.model_bridge import TransformerBridge

Model: TypeAlias = HookedTransformer | TransformerBridge
ModelClass: TypeAlias = Literal["HookedTransformer", "TransformerBridge"]


def is_bridge(model: Model) -> bool:
    """Whether the model wraps a Hugging Face module instead of reimplementing it."""
    return isinstance(model, TransformerBridge)
