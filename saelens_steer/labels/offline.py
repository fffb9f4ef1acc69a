"""A labeller without a language model: it names a feature by words of its own evidence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import log1p

from saelens_steer.files import digest
from saelens_steer.labels.evidence import LabelEvidence
from saelens_steer.labels.labeller import Failed, Name, Shown
from saelens_steer.labels.offline_words import (
    Background,
    analysis,
    clearly_written,
    firing_scores,
    is_word,
    keys_of,
    pieces,
    words_near,
    written_scores,
)

MOST_FIRING, MOST_WRITTEN = 5, 3
"""Words of a name: of those that fire the feature, and of those that it writes."""
LEAST_FIRING, LEAST_WRITTEN = 0.2, 0.6
"""A word of a name has at least this share of the best one's score."""
COMMON = 0.01
"""A word that is more of ordinary texts than this tells nothing where it is written."""
WRITES = "writes "


@dataclass(frozen=True)
class OfflineLabeller:
    """Names by counting words, and asks no model; `name` raises Failed."""

    background: Background
    """How common words are in ordinary texts."""

    @classmethod
    def of(cls, texts: Iterable[str]) -> OfflineLabeller:
        """One that knows from these texts which words are common."""
        return cls(Background.of(texts))

    @property
    def provider(self) -> str:
        """As a config calls it."""
        return "offline"

    @property
    def model(self) -> None:
        """None is asked."""

    def name(self, evidence: LabelEvidence) -> Name:
        """Words that stand out where it fires, then those it writes: `bus, tram; writes car`."""
        own, left_out = _readable(evidence), _domains(evidence)
        firing = self._firing_words(own, left_out)
        written = self._written_words(own, left_out, bool(firing))
        parts = [", ".join(firing)] if firing else []
        parts += [WRITES + ", ".join(written)] if written else []
        if not parts:
            raise Failed("no_evidence", "there is no word in what is known of it")
        return Name("; ".join(parts), analysis(own, self.background))

    def firing(self, name: Name, contexts: Sequence[str]) -> set[int]:
        """Which of the texts hold a word of the name: of those that fire it, if it has any."""
        fires, written = _words(name)
        words = fires or written
        return {i for i, text in enumerate(contexts) if not words.isdisjoint(keys_of(text))}

    def steered(self, name: Name, shown: Sequence[Shown]) -> list[bool]:
        """For each two texts whether the first holds more of the name's words.

        A word counts more the rarer it is, and less each time it comes again. A hash of the texts
        decides between equals.
        """
        fires, written = _words(name)
        return [self._is_first(fires | written, pair) for pair in shown]

    @property
    def spent(self) -> str:
        """Nobody is asked."""
        return ""

    def stop(self) -> None:
        """Nothing is under way anywhere."""

    def _is_first(self, words: set[str], pair: Shown) -> bool:
        first, second = self._held(words, pair.first), self._held(words, pair.second)
        if first != second:
            return first > second
        return digest("equal", ascii(pair.first)) < digest("equal", ascii(pair.second))

    def _held(self, words: set[str], text: str) -> float:
        counts = Counter(keys_of(text))
        return sum(log1p(counts[word]) * self.background.surprise(word) for word in sorted(words))

    def _firing_words(self, evidence: LabelEvidence, left_out: set[str]) -> list[str]:
        scores = firing_scores(evidence.contexts, self.background)
        return self._best(_without(scores, left_out), MOST_FIRING, LEAST_FIRING)

    def _written_words(self, evidence: LabelEvidence, left_out: set[str], named: bool) -> list[str]:
        """Words that tell something. Where nothing else gives a name: any, or else parts of words.

        Beside words that fire it, one has to stand in the contexts too, or to be written clearly.
        """
        scores = written_scores(evidence.raised, evidence.texts, self.background)
        scores = _without(scores, left_out)
        telling = {key: s for key, s in scores.items() if self.background.chance(key) < COMMON}
        if named:
            kept = words_near(evidence.contexts) | clearly_written(evidence, self.background)
            telling = {key: s for key, s in telling.items() if key in kept and is_word(key)}
        else:
            telling = telling or scores or _without(pieces(evidence.raised), left_out)
        return self._best(telling, MOST_WRITTEN, LEAST_WRITTEN)

    def _best(self, scores: Mapping[str, float], most: int, least: float) -> list[str]:
        """The words of the highest scores, as they are mostly written; marks if there are none."""
        words = {key: score for key, score in scores.items() if is_word(key)} or scores
        order = sorted(words, key=lambda key: (-words[key], key))[:most]
        kept = [key for key in order if words[key] >= least * words[order[0]]]
        return [self.background.usual.get(key, key) for key in kept]


def _readable(evidence: LabelEvidence) -> LabelEvidence:
    """The evidence without contexts that hold no token."""
    contexts = tuple(context for context in evidence.contexts if context.tokens)
    return replace(evidence, contexts=contexts)


def _without(scores: Mapping[str, float], left_out: set[str]) -> dict[str, float]:
    return {k: score for k, score in scores.items() if left_out.isdisjoint(keys_of(k))}


def _domains(evidence: LabelEvidence) -> set[str]:
    """Words of the domains' names: a name is not to be read off the data set."""
    names = [*evidence.rates, evidence.side, *(c.domain for c in evidence.contexts)]
    return {key for name in names for key in keys_of(name)}


def _words(name: Name) -> tuple[set[str], set[str]]:
    """The words of a name: those that fire the feature, and those that it writes."""
    fires, _, written = f"; {name.summary}".partition(f"; {WRITES}")
    return {*keys_of(fires)}, {*keys_of(written)}
