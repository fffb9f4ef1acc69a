"""Features with synthetic evidence, and a labeller whose knowledge a test chooses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from saelens_steer.features import Context, WrittenToken
from saelens_steer.labels.labeller import (
    BlindPair,
    HeldOutExamples,
    LabelCase,
    LabelEvidence,
    Labeller,
    Name,
    SteeredTexts,
    TextPair,
)


def context(text: str, domain: str = "food", peak: int = 0) -> Context:
    """A context whose tokens are words, one of which fires."""
    tokens = tuple(f" {word}" for word in text.split())
    z = tuple(2.0 if i == peak else 0.0 for i in range(len(tokens)))
    return Context("p", domain, peak, tokens, z, tuple(range(len(tokens))), (False, False))


def case(feature: int = 7, n: int = 10, n_pairs: int = 10) -> LabelCase:
    """A feature that fires on fruit and not on tools; steered texts mention fruit."""
    texts = tuple(
        SteeredTexts(f"ask {i}", f"plain {i}", {-1.0: "no fruit", 1.0: f"apple {i}"})
        for i in range(2)
    )
    evidence = LabelEvidence(
        feature,
        "food",
        tuple(context(f"apple pie {i}") for i in range(3)),
        {"food": 0.25, "tools": 0.0},
        (WrittenToken(1, " apple", 2.0), WrittenToken(2, " pear", 1.0)),
        (WrittenToken(3, " saw", -1.0),),
        texts,
    )
    trials = HeldOutExamples(
        tuple(context(f"fruit number {i}") for i in range(n)),
        tuple(context(f"tool number {i}", "tools") for i in range(n)),
        tuple(TextPair(f"try {i}", f"fruit text {i}", f"other text {i}") for i in range(n_pairs)),
    )
    return LabelCase(evidence, trials, 0.5)


@dataclass(frozen=True)
class Judge(Labeller):
    """Names every feature "fruit", and judges by a predicate on the text."""

    knows: Callable[[str], bool] = lambda text: "fruit" in text
    provider = "offline"

    def name(self, evidence: LabelEvidence) -> Name:
        return Name("fruit")

    def firing(self, name: Name, contexts: Sequence[str]) -> set[int]:
        return {i for i, text in enumerate(contexts) if self.knows(text)}

    def steered(self, name: Name, pairs: Sequence[BlindPair]) -> list[bool]:
        return [self.knows(pair.first) for pair in pairs]
