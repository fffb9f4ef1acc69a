"""The evidence that a feature is named from, and the held-out examples that test the name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from saelens_steer.features import Context, WrittenToken

Kind = Literal["both", "input", "output"]


@dataclass(frozen=True)
class SteeredTexts:
    """The model's continuations of one prompt, unsteered and steered along a feature."""

    prompt: str
    original: str
    steered: Mapping[float, str]
    """Multiple of A_max → continuation."""


@dataclass(frozen=True)
class TextPair:
    """Two continuations of one prompt: one steered along the feature, one along a random direction.

    The random direction has the feature's norm and is drawn anew for each prompt.
    """

    prompt: str
    steered: str
    other: str


@dataclass(frozen=True)
class LabelEvidence:
    """What a labeller sees of a feature before naming it."""

    feature: int
    side: str
    """The side it is a candidate of, or ""."""
    contexts: tuple[Context, ...]
    """Its largest activations, one per prompt, largest first; empty without an encoder."""
    rates: Mapping[str, float]
    """Domain → share of its tokens on which the feature fires."""
    raised: tuple[WrittenToken, ...]
    lowered: tuple[WrittenToken, ...]
    texts: tuple[SteeredTexts, ...]

    def only(self, kind: Kind) -> LabelEvidence:
        """The part on what activates the feature (input), on what it writes (output), or both."""
        if kind == "input":
            return replace(self, raised=(), lowered=(), texts=())
        return self if kind == "both" else replace(self, contexts=(), rates={})

    @property
    def empty(self) -> bool:
        """Whether there is nothing to name the feature from."""
        return not (self.contexts or self.raised or self.texts)


@dataclass(frozen=True)
class HeldOutExamples:
    """Examples that test a name; the labeller saw none of them when naming the feature."""

    firing: tuple[Context, ...]
    """In order of falling activation."""
    silent: tuple[Context, ...]
    """Contexts without any token on which the feature fires."""
    pairs: tuple[TextPair, ...]


@dataclass(frozen=True)
class LabelCase:
    """One feature to be named: its evidence, and the examples that test its name."""

    evidence: LabelEvidence
    trials: HeldOutExamples
    effect: float | None
    """The steering effect score; None if the feature could not be steered."""


@dataclass(frozen=True)
class LabelInputs:
    """Everything needed to name the features of one SAE without loading a model."""

    layer: int
    cases: tuple[LabelCase, ...]
    ordinary: tuple[str, ...]
    """The cached texts, from which the offline labeller learns how common each word is."""
    neuronpedia_id: str | None = None
    """The SAE's id on Neuronpedia, from SAELens's metadata."""
