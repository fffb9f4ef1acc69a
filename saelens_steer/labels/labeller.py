"""Who names features and stands the tests of the names; and how that can fail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from saelens_steer.labels.evidence import LabelEvidence

Failure = Literal["unreadable", "unanswered", "refused", "over_budget", "no_evidence"]
MOST_WORDS = 19
"""A name has fewer than twenty words,"""
MOST_LETTERS = 200
"""and no more characters, where words are not set apart."""


def writable(text: str) -> str:
    """A text without halves of characters, which no file can hold."""
    return text.encode("utf-8", "replace").decode("utf-8")


class Failed(Exception):
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
    """What was wrong with the answer that it was read from, such as a summary that was cut."""


@dataclass(frozen=True)
class Shown:
    """Two texts after one prompt, without a word on which was steered."""

    prompt: str
    first: str
    second: str


@runtime_checkable
class Labeller(Protocol):
    """Names features, and is tested on its names. Every method raises Failed."""

    @property
    def provider(self) -> str:
        """As a config calls it."""
        ...

    @property
    def model(self) -> str | None:
        """The model that is asked, if any."""
        ...

    def name(self, evidence: LabelEvidence) -> Name:
        """A name for a feature."""
        ...

    def firing(self, name: Name, contexts: Sequence[str]) -> set[int]:
        """Which of the texts (counted from 0) the feature of that name fires in."""
        ...

    def steered(self, name: Name, shown: Sequence[Shown]) -> list[bool]:
        """For each two texts whether it was the first that was steered along that feature."""
        ...

    @property
    def spent(self) -> str:
        """What asking took, in words; nothing where nobody was asked."""
        ...

    def stop(self) -> None:
        """Begin nothing more in other threads."""
        ...
