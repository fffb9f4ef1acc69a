"""The interface of whoever names features and is tested on the names; and how that can fail."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from saelens_steer.labels.evidence import LabelEvidence

Failure = Literal["unreadable", "unanswered", "refused", "over_budget", "no_evidence"]
MOST_WORDS = 19
"""A name has fewer than twenty words,"""
MOST_LETTERS = 200
"""and no more characters, for scripts without spaces."""


class LabelError(Exception):
    """No name, or no answer to a test; the text says why, in a sentence."""

    def __init__(self, status: Failure, why: str) -> None:
        super().__init__(why)
        self.status: Failure = status


@dataclass(frozen=True)
class Name:
    """What a feature is called."""

    summary: str
    """Fewer than twenty words."""
    analysis: str = ""
    remark: str = ""
    """A flaw of the answer that it was read from, such as a summary that was cut."""


@dataclass(frozen=True)
class BlindPair:
    """Two texts after one prompt, without a hint which one was steered along the feature."""

    prompt: str
    first: str
    second: str


class Labeller(ABC):
    """Names features, and is tested on its names. The abstract methods raise LabelError."""

    provider: ClassVar[str]
    """As a config calls it."""

    @property
    def model(self) -> str | None:
        """The model that is asked, if any."""
        return None

    @property
    def spent(self) -> str:
        """What asking cost, in words; empty if nobody was asked."""
        return ""

    @abstractmethod
    def name(self, evidence: LabelEvidence) -> Name:
        """A name for a feature."""

    @abstractmethod
    def firing(self, name: Name, contexts: Sequence[str]) -> set[int]:
        """Which of the texts (counted from 0) the feature of that name fires in."""

    @abstractmethod
    def steered(self, name: Name, pairs: Sequence[BlindPair]) -> list[bool]:
        """For each pair whether the first text was steered along that feature."""

    def stop(self) -> None:  # noqa: B027
        """Begin nothing more in other threads."""


def writable(text: str) -> str:
    """A text without lone surrogates, which no file can hold."""
    return text.encode("utf-8", "replace").decode("utf-8")
