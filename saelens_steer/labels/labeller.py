"""The interface of a labeller, which names features and is tested on the names."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from saelens_steer.labels.evidence import LabelEvidence

Failure = Literal["unreadable", "unanswered", "refused", "over_budget", "no_evidence"]
MOST_WORDS = 19
"""Words that a name may have."""
MOST_LETTERS = 200
"""Characters that a name may have, for scripts without spaces."""


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
