"""Spec of the feature pages: what is shown of each candidate."""

from __future__ import annotations

from pydantic import Field

from saelens_steer.config.base import Spec


class FeaturesSpec(Spec):
    """What is shown of each candidate: the contexts it fires in, what it writes, its neighbours."""

    also: tuple[int, ...] = ()
    """Further features to show beside the candidates."""
    contexts: int = Field(default=8, gt=0)
    """The contexts with the largest activations, one for each prompt."""
    window: int = Field(default=12, gt=0)
    """Tokens shown on either side of the one with the largest activation."""
    tokens: int = Field(default=10, gt=0)
    """Tokens shown of those that the decoder row raises, and of those it lowers."""
    neighbours: int = Field(default=6, ge=0)
    """Features shown with the largest decoder cosine."""
    topic: str | None = "tiny-transport-topic"
    """Prompts whose domains are the categories of one topic, for the strength of each feature by
    category; null (the default for another model than the tiny one): none."""
