"""TransformerLens's two model classes, both supported."""

from __future__ import annotations

from typing import Literal, TypeAlias
from weakref import WeakKeyDictionary

from transformer_lens import HookedTransformer
from transformer_lens.model_bridge import TransformerBridge
from transformers import PreTrainedTokenizerBase

from saelens_steer.no_tokenizer import NoTokenizer
from saelens_steer.progress import say

Model: TypeAlias = HookedTransformer | TransformerBridge
ModelClass: TypeAlias = Literal["HookedTransformer", "TransformerBridge"]


_without = WeakKeyDictionary[Model, NoTokenizer]()


def tokenizer_of(model: Model) -> PreTrainedTokenizerBase:
    """The model's tokenizer; without one, a `NoTokenizer`, which raises InputError for text."""
    if model.tokenizer is not None:
        return model.tokenizer
    if model not in _without:
        _without[model] = NoTokenizer(model.cfg.d_vocab)
        say(
            "The model has no tokenizer: texts are shown as token ids, and no token counts as "
            "special."
        )
    return _without[model]


def is_weightless(model: Model) -> bool:
    """Whether only the model's config, hooks and tokenizer can be used, as in `FoundModel`."""
    return any(weight.is_meta for weight in model.parameters())


def is_bridge(model: Model) -> bool:
    """Whether the model wraps a Hugging Face module instead of reimplementing it."""
    return isinstance(model, TransformerBridge)
