"""The evidence on a feature that gets a name, and the examples its name is tested on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from saelens_steer.features import Context, WrittenToken

Kind = Literal["both", "input", "output"]


@dataclass(frozen=True)
class SteeredTexts:
    """The model's texts after one prompt, unsteered and along a feature."""

    prompt: str
    original: str
    steered: Mapping[float, str]
    """Multiple of A_max → the text."""


@dataclass(frozen=True)
class TextPair:
    """Two texts after one prompt: along the feature, and along a random direction of equal norm.

    The direction is drawn anew for each prompt.
    """

    prompt: str
    steered: str
    other: str


@dataclass(frozen=True)
class LabelEvidence:
    """The evidence shown to whoever names a feature."""

    feature: int
    side: str
    """The side it is a candidate of, or an empty text."""
    contexts: tuple[Context, ...]
    """Its largest activations, one per prompt, largest first; none without an encoder."""
    rates: Mapping[str, float]
    """Domain → share of its tokens on which the feature fires."""
    raised: tuple[WrittenToken, ...]
    lowered: tuple[WrittenToken, ...]
    texts: tuple[SteeredTexts, ...]

    def only(self, kind: Kind) -> LabelEvidence:
        """The evidence on what fires the feature (input), on what it writes (output), or all."""
        if kind == "input":
            return replace(self, raised=(), lowered=(), texts=())
        return self if kind == "both" else replace(self, contexts=(), rates={})

    @property
    def empty(self) -> bool:
        """Whether nothing is known of the feature."""
        return not (self.contexts or self.raised or self.texts)


@dataclass(frozen=True)
class HeldOutExamples:
    """The examples a name is tested on; none is shown to whoever names the feature."""

    firing: tuple[Context, ...]
    """From its larger activations to its smaller ones."""
    silent: tuple[Context, ...]
    """Contexts in which the feature fires on no token."""
    pairs: tuple[TextPair, ...]


@dataclass(frozen=True)
class LabelCase:
    """A feature to be named: the evidence, and the held-out examples for its name."""

    evidence: LabelEvidence
    trials: HeldOutExamples
    effect: float | None
    """The steering effect score; None if nothing could be steered."""


@dataclass(frozen=True)
class LabelInputs:
    """All that naming the features of one SAE needs, so that no model has to be loaded."""

    layer: int
    cases: tuple[LabelCase, ...]
    ordinary: tuple[str, ...]
    """The cached texts, which tell how common each word is."""
    neuronpedia_id: str | None = None
    """The SAE's, from SAELens's metadata."""
