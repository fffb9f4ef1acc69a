"""The interface of a labeller: the evidence it names features from, and the tests of its names."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from saelens_steer.features import Context, WrittenToken

Kind = Literal["both", "input", "output"]
Failure = Literal["unreadable", "unanswered", "refused", "over_budget", "no_evidence"]
MOST_WORDS = 19
"""Words that a name may have."""
MOST_LETTERS = 200
"""Characters that a name may have, for scripts without spaces."""


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
    """In decreasing order of activation."""
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


class LabelError(Exception):
    """A feature got no name, or a test no answer. The text says why, in a sentence."""

    def __init__(self, status: Failure, why: str) -> None:
        super().__init__(why)
        self.status: Failure = status


@dataclass(frozen=True)
class Name:
    """A feature's name."""

    summary: str
    """Fewer than twenty words."""
    analysis: str = ""
    remark: str = ""
    """A flaw in the answer it was read from, such as a summary that was cut."""


@dataclass(frozen=True)
class BlindPair:
    """Two continuations of one prompt, with no hint which was steered along the feature."""

    prompt: str
    first: str
    second: str


class Labeller(ABC):
    """Names features, and is tested on its names. The abstract methods raise LabelError."""

    provider: ClassVar[str]
    """Its name in a config."""

    @property
    def model(self) -> str | None:
        """The model it asks, if any."""
        return None

    @property
    def spent(self) -> str:
        """The cost of all requests, in words; "" if it asks no server."""
        return ""

    @abstractmethod
    def name(self, evidence: LabelEvidence) -> Name:
        """A name for a feature."""

    @abstractmethod
    def firing(self, name: Name, contexts: Sequence[str]) -> set[int]:
        """The indices of the texts in which a feature with that name would fire."""

    @abstractmethod
    def steered(self, name: Name, pairs: Sequence[BlindPair]) -> list[bool]:
        """For each pair, whether the first text is the one steered along that feature."""

    def stop(self) -> None:  # noqa: B027
        """Start no further work in other threads."""


def writable(text: str) -> str:
    """The text without lone surrogates, which cannot be encoded in a file."""
    return text.encode("utf-8", "replace").decode("utf-8")
