"""What is known of a feature before it has a name, and what its name is tested on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from saelens_steer.features import Context, WrittenToken

Kind = Literal["both", "input", "output"]


@dataclass(frozen=True)
class SteeredTexts:
    """What the model writes after one prompt, unsteered and along a feature."""

    prompt: str
    original: str
    steered: Mapping[float, str]
    """Multiple of A_max → the text."""


@dataclass(frozen=True)
class TextPair:
    """Two texts after one prompt: along the feature, and along a random direction as long.

    Each prompt has a random direction of its own.
    """

    prompt: str
    steered: str
    other: str


@dataclass(frozen=True)
class LabelEvidence:
    """What is shown to whoever names a feature."""

    feature: int
    side: str
    """The side it is a candidate of, or an empty text."""
    contexts: tuple[Context, ...]
    """Where it fires most, one for each prompt, largest first; none without an encoder."""
    rates: Mapping[str, float]
    """Domain → share of its tokens on which the feature fires."""
    raised: tuple[WrittenToken, ...]
    lowered: tuple[WrittenToken, ...]
    texts: tuple[SteeredTexts, ...]

    def only(self, kind: Kind) -> LabelEvidence:
        """What fires the feature (input), what it writes (output), or both."""
        if kind == "input":
            return replace(self, raised=(), lowered=(), texts=())
        return self if kind == "both" else replace(self, contexts=(), rates={})

    @property
    def empty(self) -> bool:
        """Whether there is nothing to go on."""
        return not (self.contexts or self.raised or self.texts)


@dataclass(frozen=True)
class LabelTrials:
    """What a name is tested on; nothing of it is shown to whoever names."""

    firing: tuple[Context, ...]
    """From its larger activations to its smaller ones."""
    silent: tuple[Context, ...]
    """Contexts in which the feature fires on no token."""
    pairs: tuple[TextPair, ...]


@dataclass(frozen=True)
class LabelCase:
    """A feature to be named, and what its name is tested on."""

    evidence: LabelEvidence
    trials: LabelTrials
    effect: float | None
    """The steering effect score; None where nothing could be steered."""


@dataclass(frozen=True)
class Gathered:
    """All that naming the features of one SAE takes; no model is needed any more."""

    layer: int
    cases: tuple[LabelCase, ...]
    ordinary: tuple[str, ...]
    """The cached texts, which tell what words are common."""
    neuronpedia_id: str | None = None
    """Of the SAE, as in SAELens's metadata."""
