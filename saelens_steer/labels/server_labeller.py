"""A labeller that asks a language model behind an OpenAI-compatible server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from saelens_steer.labels.client import Client
from saelens_steer.labels.evidence import LabelEvidence
from saelens_steer.labels.labeller import BlindPair, Labeller, Name
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
class ServerLabeller(Labeller):
    """Names features by asking the server. Its methods raise LabelError."""

    client: Client
    provider = "openai-compatible"

    @property
    def model(self) -> str:
        return self.client.spec.model

    @property
    def spent(self) -> str:
        """Requests and tokens; where the server reports no usage, the most they can have cost."""
        budget = self.client.budget
        return f"{budget.requests:,} requests, {budget.tokens:,} tokens"

    def name(self, evidence: LabelEvidence) -> Name:
        return self.client.ask(naming(evidence), self._read_name)

    def _read_name(self, answer: Answer) -> Name:
        """The name without the key, remarking on an answer by another model than was asked."""
        name, clean = read_name(answer), self.client.server.clean
        name = replace(name, summary=clean(name.summary), analysis=clean(name.analysis))
        if not answer.model or answer.model.startswith(self.model):
            return name
        other = f"the server answered as {answer.model!r}"
        return replace(name, remark=f"{name.remark}; {other}" if name.remark else other)

    def firing(self, name: Name, contexts: Sequence[str]) -> set[int]:
        n = len(contexts)
        numbers = self.client.ask(detecting(name, contexts), lambda a: read_numbers(a, n))
        return {number - 1 for number in numbers}

    def steered(self, name: Name, pairs: Sequence[BlindPair]) -> list[bool]:
        n = len(pairs)
        letters = self.client.ask(choosing(name, pairs), lambda a: read_letters(a, n))
        return [letter == "A" for letter in letters]

    def stop(self) -> None:
        self.client.stop()
