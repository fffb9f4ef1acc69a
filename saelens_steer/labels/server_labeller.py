"""A labeller that asks a language model behind an OpenAI-compatible server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from saelens_steer.labels.client import Client
from saelens_steer.labels.evidence import LabelEvidence
from saelens_steer.labels.labeller import Name, Shown
from saelens_steer.labels.questions import (
    choosing,
    detecting,
    naming,
    read_letters,
    read_name,
    read_numbers,
)
from saelens_steer.labels.server import Answer


@dataclass(frozen=True)
class ServerLabeller:
    """Names by asking; its methods raise Failed."""

    client: Client
    provider: str = "openai-compatible"

    @property
    def model(self) -> str | None:
        """The model that is asked."""
        return self.client.spec.model

    def name(self, evidence: LabelEvidence) -> Name:
        """A name for a feature."""
        return self.client.ask(naming(evidence), self._named)

    def firing(self, name: Name, contexts: Sequence[str]) -> set[int]:
        """Which of the texts the feature of that name fires in."""

        def read(answer: Answer) -> set[int]:
            return {number - 1 for number in read_numbers(answer, "active", len(contexts))}

        return self.client.ask(detecting(name, contexts), read)

    def steered(self, name: Name, shown: Sequence[Shown]) -> list[bool]:
        """For each two texts whether it was the first that was steered along that feature."""

        def read(answer: Answer) -> list[bool]:
            return [letter == "A" for letter in read_letters(answer, "choices", len(shown))]

        return self.client.ask(choosing(name, shown), read)

    @property
    def spent(self) -> str:
        """Requests and tokens: these as the server counts them, or else the most they may be."""
        budget = self.client.budget
        return f"{budget.requests:,} requests, {budget.tokens:,} tokens"

    def stop(self) -> None:
        """Ask nothing more."""
        self.client.stop()

    def _named(self, answer: Answer) -> Name:
        name, asked, clean = read_name(answer), self.client.spec.model, self.client.server.clean
        name = replace(name, summary=clean(name.summary), analysis=clean(name.analysis))
        if not answer.model or answer.model.startswith(asked):
            return name
        other = f"the server answered as {answer.model!r}"
        return replace(name, remark=f"{name.remark}; {other}" if name.remark else other)
