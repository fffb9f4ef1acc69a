"""A labeller without a language model: it names a feature by words from its evidence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import log1p

from saelens_steer.files import digest
from saelens_steer.labels.labeller import BlindPair, LabelError, LabelEvidence, Labeller, Name
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
"""Maximum words in a name: those that activate the feature, and those that it writes."""
LEAST_FIRING, LEAST_WRITTEN = 0.2, 0.6
"""Lowest score of a word in a name, relative to the best word's."""
COMMON = 0.01
"""A written word is uninformative if its probability per ordinary word reaches this."""
WRITES = "writes "


@dataclass(frozen=True)
class OfflineLabeller(Labeller):
    """Names features by counting words."""

    background: WordCounts
    """Word frequencies in ordinary texts."""
    provider = "offline"

    @classmethod
    def of(cls, texts: Iterable[str]) -> OfflineLabeller:
        """A labeller with the word frequencies of these texts."""
        return cls(WordCounts.of(texts))

    def name(self, evidence: LabelEvidence) -> Name:
        """Words that stand out in its contexts, then words it writes: `bus, tram; writes car`."""
        contexts = tuple(context for context in evidence.contexts if context.tokens)
        own, excluded = replace(evidence, contexts=contexts), _domain_words(evidence)
        scores = _without(firing_scores(contexts, self.background), excluded)
        firing = self._best(scores, MOST_FIRING, LEAST_FIRING)
        written = self._written_words(own, excluded, bool(firing))
        parts = [", ".join(firing)] if firing else []
        parts += [WRITES + ", ".join(written)] if written else []
        if not parts:
            raise LabelError("no_evidence", "the evidence contains no usable word")
        return Name("; ".join(parts), analysis(own, self.background))

    def firing(self, name: Name, contexts: Sequence[str]) -> set[int]:
        """Indices of texts with an activating word of the name, or a written one if it has none."""
        fires, written = _words(name)
        words = fires or written
        return {i for i, text in enumerate(contexts) if not words.isdisjoint(keys_of(text))}

    def steered(self, name: Name, pairs: Sequence[BlindPair]) -> list[bool]:
        """For each pair, whether the first text contains more of the name's words.

        Rare words count more, and each repetition of a word counts less. A hash of the text breaks
        ties.
        """
        fires, written = _words(name)
        words = sorted(fires | written)

        def rank(text: str) -> tuple[float, str]:
            counts = Counter(keys_of(text))
            total = sum(log1p(counts[word]) * self.background.surprise(word) for word in words)
            return -total, digest("equal", ascii(text))

        return [rank(pair.first) < rank(pair.second) for pair in pairs]

    def _written_words(self, evidence: LabelEvidence, excluded: set[str], named: bool) -> list[str]:
        """The informative words it writes.

        If activating words already name it, only words in the contexts or clearly written ones.
        Otherwise, if there is no informative word, any word, or else any raised token.
        """
        scores = written_scores(evidence.raised, evidence.texts, self.background)
        scores = _without(scores, excluded)
        rare = {key: s for key, s in scores.items() if self.background.chance(key) < COMMON}
        if named:
            kept = words_in(evidence.contexts) | clearly_written(evidence, self.background)
            rare = {key: s for key, s in rare.items() if key in kept and is_word(key)}
        else:
            rare = rare or scores or _without(pieces(evidence.raised), excluded)
        return self._best(rare, MOST_WRITTEN, LEAST_WRITTEN)

    def _best(self, scores: Mapping[str, float], most: int, least: float) -> list[str]:
        """The best words in their usual spelling; single characters only if there are no words."""
        words = {key: score for key, score in scores.items() if is_word(key)} or scores
        order = sorted(words, key=lambda key: (-words[key], key))[:most]
        kept = [key for key in order if words[key] >= least * words[order[0]]]
        return [self.background.usual.get(key, key) for key in kept]


def _without(scores: Mapping[str, float], excluded: set[str]) -> dict[str, float]:
    return {key: score for key, score in scores.items() if excluded.isdisjoint(keys_of(key))}


def _domain_words(evidence: LabelEvidence) -> set[str]:
    """Words in the names of domains; a name must not be copied from the data set."""
    names = [*evidence.rates, evidence.side, *(c.domain for c in evidence.contexts)]
    return {key for name in names for key in keys_of(name)}


def _words(name: Name) -> tuple[set[str], set[str]]:
    """The words of a name that activate the feature, and those it writes."""
    fires, _, written = f"; {name.summary}".partition(f"; {WRITES}")
    return {*keys_of(fires)}, {*keys_of(written)}
