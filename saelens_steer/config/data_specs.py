"""Specs of the model, the prompts and the activations."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from saelens_steer.config.base import Spec

TINY = "tiny-qwen3"


class ModelSpec(Spec):
    """Which model, as what class, in what precision, where."""

    name: str = TINY
    """`tiny-qwen3`, a Hugging Face id, or a local folder."""
    class_: Literal["HookedTransformer", "TransformerBridge"] = Field(
        default="HookedTransformer", alias="class"
    )
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    device: str = "auto"


class PromptSpec(Spec):
    """The prompts that are steered and measured."""

    source: str = "tiny-code-math-mixed"
    """A shipped name, a .jsonl path, or a Hugging Face dataset."""
    limit: int | None = Field(default=24, gt=0)
    """Use the first so many; null for all."""
    system: str | None = None
    """A system message for the chat template."""
    chat: bool = True
    """Wrap each text in the model's chat template; false: the text as it stands."""


class ActivationSpec(Spec):
    """Which tokens' activations are kept."""

    tokens: Literal["all", "last", "diagnostic"] = "all"
    max_norm: float | None = Field(default=10.0, gt=0)
    """Drop attention sinks: vectors whose norm exceeds so many times the median; null keeps all."""
    batch_size: int = Field(default=32, gt=0)
