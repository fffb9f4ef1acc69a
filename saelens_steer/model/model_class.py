"""TransformerLens's two model classes, both supported."""

from __future__ import annotations

from typing import Literal, TypeAlias

from transformer_lens import HookedTransformer
from transformer_lens.model_bridge import TransformerBridge
from transformers import PreTrainedTokenizerBase

from saelens_steer.errors import InputError

Model: TypeAlias = HookedTransformer | TransformerBridge
ModelClass: TypeAlias = Literal["HookedTransformer", "TransformerBridge"]


def tokenizer_of(model: Model) -> PreTrainedTokenizerBase:
    """The model's tokenizer. Raises InputError for a model without one."""
    if model.tokenizer is None:
        raise InputError("the model has no tokenizer: load it with load_model")
    return model.tokenizer


def is_bridge(model: Model) -> bool:
    """Whether the model wraps a Hugging Face module instead of reimplementing it."""
    return isinstance(model, TransformerBridge)
