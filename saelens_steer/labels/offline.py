"""A labeller without a language model: it names a feature by words of its own evidence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import log1p

from saelens_steer.files import digest
from saelens_steer.labels.evidence import LabelEvidence
from saelens_steer.labels.labeller import BlindPair, LabelError, Labeller, Name
from saelens_steer.labels.offline_words import (
    WordCounts,
    analysis,
    clearly_written,
    firing_scores,
    is_word,
    keys_of,
    pieces,
    words_in,
    written_scores,
)

MOST_FIRING, MOST_WRITTEN = 5, 3
"""Words of a name: of those that fire the feature, and of those that it writes."""
LEAST_FIRING, LEAST_WRITTEN = 0.2, 0.6
"""A word of a name has at least this share of the best one's score."""
COMMON = 0.01
"""A written word with a larger share of ordinary texts than this is uninformative."""
WRITES = "writes "


@dataclass(frozen=True)
class OfflineLabeller(Labeller):
    """Names by counting words, and asks no model."""

    background: WordCounts
    """How common words are in ordinary texts."""
    provider = "offline"

    @classmethod
    def of(cls, texts: Iterable[str]) -> OfflineLabeller:
        """A labeller that learns from these texts which words are common."""
        return cls(WordCounts.of(texts))

    def name(self, evidence: LabelEvidence) -> Name:
        """Words that stand out where it fires, then those it writes: `bus, tram; writes car`."""
        contexts = tuple(context for context in evidence.contexts if context.tokens)
        own, left_out = replace(evidence, contexts=contexts), _domain_words(evidence)
        firing = self._firing_words(own, left_out)
        written = self._written_words(own, left_out, bool(firing))
        parts = [", ".join(firing)] if firing else []
        parts += [WRITES + ", ".join(written)] if written else []
        if not parts:
            raise LabelError("no_evidence", "there is no word in what is known of it")
        return Name("; ".join(parts), analysis(own, self.background))

    def firing(self, name: Name, contexts: Sequence[str]) -> set[int]:
        """Which of the texts hold a word of the name: of those that fire it, if it has any."""
        fires, written = _words(name)
        words = fires or written
        return {i for i, text in enumerate(contexts) if not words.isdisjoint(keys_of(text))}

    def steered(self, name: Name, pairs: Sequence[BlindPair]) -> list[bool]:
        """For each pair whether the first text holds more of the name's words.

        A word counts more the rarer it is, and less each time it comes again. A hash of the texts
        breaks ties.
        """
        fires, written = _words(name)
        words = sorted(fires | written)

        def rank(text: str) -> tuple[float, str]:
            counts = Counter(keys_of(text))
            held = sum(log1p(counts[word]) * self.background.surprise(word) for word in words)
            return -held, digest("equal", ascii(text))

        return [rank(pair.first) < rank(pair.second) for pair in pairs]

    def _firing_words(self, evidence: LabelEvidence, left_out: set[str]) -> list[str]:
        scores = firing_scores(evidence.contexts, self.background)
        return self._best(_without(scores, left_out), MOST_FIRING, LEAST_FIRING)

    def _written_words(self, evidence: LabelEvidence, left_out: set[str], named: bool) -> list[str]:
        """The informative words that it writes; if it has no other name any, or else word parts.

        If words that fire it name it, only those also in the contexts or clearly written.
        """
        scores = written_scores(evidence.raised, evidence.texts, self.background)
        scores = _without(scores, left_out)
        telling = {key: s for key, s in scores.items() if self.background.chance(key) < COMMON}
        if named:
            kept = words_in(evidence.contexts) | clearly_written(evidence, self.background)
            telling = {key: s for key, s in telling.items() if key in kept and is_word(key)}
        else:
            telling = telling or scores or _without(pieces(evidence.raised), left_out)
        return self._best(telling, MOST_WRITTEN, LEAST_WRITTEN)

    def _best(self, scores: Mapping[str, float], most: int, least: float) -> list[str]:
        """The words of the highest scores, as they are usually written; marks without a word."""
        words = {key: score for key, score in scores.items() if is_word(key)} or scores
        order = sorted(words, key=lambda key: (-words[key], key))[:most]
        kept = [key for key in order if words[key] >= least * words[order[0]]]
        return [self.background.usual.get(key, key) for key in kept]


def _without(scores: Mapping[str, float], left_out: set[str]) -> dict[str, float]:
    return {k: score for k, score in scores.items() if left_out.isdisjoint(keys_of(k))}


def _domain_words(evidence: LabelEvidence) -> set[str]:
    """Words of the domains' names: a name is not to be read off the data set."""
    names = [*evidence.rates, evidence.side, *(c.domain for c in evidence.contexts)]
    return {key for name in names for key in keys_of(name)}


def _words(name: Name) -> tuple[set[str], set[str]]:
    """The words of a name: those that fire the feature, and those that it writes."""
    fires, _, written = f"; {name.summary}".partition(f"; {WRITES}")
    return {*keys_of(fires)}, {*keys_of(written)}
