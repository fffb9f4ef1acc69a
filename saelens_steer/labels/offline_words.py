"""Find the words that stand out in a feature's contexts, and in what it writes."""

from __future__ import annotations

import re
from bisect import bisect
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from math import log
from typing import NamedTuple
from unicodedata import combining

from saelens_steer.features import Context, WrittenToken
from saelens_steer.labels.labeller import LabelEvidence, SteeredTexts

PARTS = re.compile(
    r"\\?[^\W\d_]+(?:['’][^\W\d_]+)*"  # a word, or a LaTeX command
    r"|(?P<mark>[^\w\s])(?P=mark)*"  # a punctuation mark, with its repetitions
)
"""The parts a name can consist of. Digits are not among them."""
ROLES = re.compile(r"^[ \t]*(?:system|user|assistant|model)[ \t]*$", re.MULTILINE)
"""A line of a chat template that names the speaker."""
SPECIAL = re.compile(r"<\|[^<>|\s]{1,40}\|>|</?(?:s|bos|eos|pad|unk|mask|(?:start|end)_of_turn)>")
"""Special tokens, as tokenizers write them."""
SEPARATORS = re.compile(r"[\s,;]")
"""What separates the words of a name, so no word may contain it."""
LONGEST = 32
"""Characters of the longest string that counts as a word."""
HERE, NEXT, NEAR = 1.0, 0.6, 0.3
"""Weights of the word at the peak, of the word to be written next, and of their neighbours."""
FADING = 8
"""Distance, in words, at which a neighbour's weight has halved."""
COMMON_WORD = 0.01
"""Smallest weight, for words that are as common elsewhere: used only if nothing else is left."""
OFTEN = 0.5
"""A word that appears in this share of the steered texts is not there by chance."""
MOST_LISTED = 3
"""Tokens of one kind that the analysis lists."""
CLEAR = 1.5
"""A token is clearly raised if its logit rises by this multiple of the largest fall. Most of a
decoder row's effect on the logits is chance, which raises as much as it lowers."""


class Part(NamedTuple):
    """A word or a mark, and its span in a text."""

    text: str
    start: int
    end: int

    @property
    def key(self) -> str:
        return key_of(self.text)


def key_of(text: str) -> str:
    """The key a word is counted under: case matters in LaTeX commands only."""
    return text if text.startswith("\\") else text.lower()


def parts_of(text: str) -> list[Part]:
    """The words and marks of a text, in order, without chat template and overlong strings."""
    for pattern in (SPECIAL, ROLES):
        text = pattern.sub(lambda found: " " * len(found[0]), text)
    parts = (Part(found[0], *found.span()) for found in PARTS.finditer(text))
    return [part for part in parts if _fits_a_name(part.text)]


def _fits_a_name(text: str) -> bool:
    printed = text.isprintable() and not combining(text[:1] or " ")
    return printed and 0 < len(text) <= LONGEST and not SEPARATORS.search(text)


def keys_of(text: str) -> list[str]:
    """The keys of the words and marks of a text."""
    return [part.key for part in parts_of(text)]


def is_word(key: str) -> bool:
    """Whether it is informative alone: more than one letter, or a repeated mark."""
    return len(key) > 1


@dataclass(frozen=True)
class WordCounts:
    """How often words occur in ordinary texts."""

    forms: Mapping[str, int]
    """Word as spelled → occurrences."""

    @classmethod
    def of(cls, texts: Iterable[str]) -> WordCounts:
        """Count the words of all texts."""
        forms: Counter[str] = Counter()
        for text in texts:
            forms.update(part.text for part in parts_of(text))
        return cls(forms)

    @cached_property
    def counts(self) -> Mapping[str, int]:
        """Key → occurrences in any spelling."""
        counts: Counter[str] = Counter()
        for form, count in self.forms.items():
            counts[key_of(form)] += count
        return counts

    @cached_property
    def usual(self) -> Mapping[str, str]:
        """Key → its most frequent spelling."""
        rising = sorted(self.forms.items(), key=lambda form: (form[1], form[0]))
        return {key_of(form): form for form, _ in rising}

    @cached_property
    def total(self) -> int:
        """The number of words, with repetitions."""
        return sum(self.forms.values())

    def chance(self, key: str, n_words: float = 1) -> float:
        """The probability that n ordinary words include this one; 0 occurrences count as 1/2."""
        rate = (self.counts.get(key, 0) + 0.5) / (self.total + 100)
        return 1 - (1 - rate) ** max(n_words, 1)

    def surprise(self, key: str) -> float:
        """The surprise of a word, in nats: −log of its probability."""
        return -log(self.chance(key))

    def whole_word(self, token: str) -> str | None:
        """The key of a token that is one whole word or mark; None for other tokens.

        An unknown token that begins with a space counts unless it begins a known word.
        """
        bare = token.strip().strip("_▁")
        parts = parts_of(bare)
        if len(parts) != 1 or parts[0].text != bare:
            return None
        key = parts[0].key
        if key in self.counts:
            return key
        begins_another = any(known.startswith(key) for known in self.counts)
        return key if token[0] in " _▁" and not begins_another else None


def firing_scores(contexts: Sequence[Context], background: WordCounts) -> dict[str, float]:
    """Key → score: high for words in many contexts, near their peaks, and rare elsewhere."""
    own = [weights_of(context) for context in contexts]
    sizes = [max(c.activations[c.peak], 0.0) for c in contexts]
    n_words = sum(map(len, own)) / max(len(own), 1)
    scores = {}
    for key in sorted({key for weights in own for key in weights}):
        n = sum(key in weights for weights in own)
        support = sum(size * w.get(key, 0.0) for size, w in zip(sizes, own, strict=True))
        chance = background.chance(key, n_words)
        share = (n + chance) / (len(own) + 1)  # as if one more context were ordinary text
        scores[key] = support / (sum(sizes) or 1.0) * max(log(share / chance), COMMON_WORD)
    return scores


def weights_of(context: Context) -> dict[str, float]:
    """Key → relevance of each word of a context to the feature, from 0 to 1.

    The largest of three: its activation as a share of the peak's; NEXT if it is to be written next;
    NEAR, falling with distance from the peak.
    """
    found: dict[str, float] = {}
    ends = list(accumulate(len(token) for token in context.tokens))
    parts = _uncut(context, ends)
    following = bisect([part.start for part in parts], ends[context.peak] - 1)
    for i, part in enumerate(parts):
        distance = i - following if i >= following else following - 1 - i
        near = NEXT if i == following else NEAR * 0.5 ** (distance / FADING)
        weight = max(near, HERE * _activation(context, part, ends))
        found[part.key] = max(weight, found.get(part.key, 0.0))
    return found


def _activation(context: Context, part: Part, ends: list[int]) -> float:
    """The largest activation on a word, as a share of the peak's."""
    first, last = bisect(ends, part.start), bisect(ends, part.end - 1)
    peak = context.activations[context.peak]
    return max(context.activations[first : last + 1]) / peak if peak > 0 else 0.0


def _uncut(context: Context, ends: list[int]) -> list[Part]:
    """The words of a context, without words that its window cuts."""
    before, after = context.more
    return [
        part
        for part in parts_of("".join(context.tokens))
        if not (before and part.start == 0) and not (after and part.end == ends[-1])
    ]


def written_scores(
    raised: Sequence[WrittenToken], texts: Sequence[SteeredTexts], background: WordCounts
) -> dict[str, float]:
    """Key → its logit as a share of the largest one, plus its share of the steered texts."""
    scores = gains(texts)
    top = max((token.logit for token in raised), default=0.0)
    for token in raised:
        key = background.whole_word(token.text)
        if key and token.logit > 0:
            scores[key] = scores.get(key, 0.0) + token.logit / top
    return scores


def words_in(contexts: Sequence[Context]) -> set[str]:
    """The keys of all words in some contexts."""
    return {key for context in contexts for key in weights_of(context)}


def clearly_written(evidence: LabelEvidence, background: WordCounts) -> set[str]:
    """Words raised much more than any is lowered, and words that steering often adds to texts."""
    noise = max((-token.logit for token in evidence.lowered), default=0.0)
    clear = [token for token in evidence.raised if token.logit >= CLEAR * noise]
    words = {background.whole_word(token.text) for token in clear}
    gained = {key for key, share in gains(evidence.texts).items() if share >= OFTEN}
    return {word for word in words if word} | gained


def gains(texts: Sequence[SteeredTexts]) -> dict[str, float]:
    """Key → share of the texts with α > 0 that have it, unlike prompt and unsteered text."""
    found, n = Counter[str](), 0
    for text in texts:
        known = {*keys_of(text.prompt), *keys_of(text.original)}
        for written in (t for strength, t in text.steered.items() if strength > 0):
            found.update({*keys_of(written)} - known)
            n += 1
    return {key: count / n for key, count in found.items()}


def pieces(raised: Sequence[WrittenToken]) -> dict[str, float]:
    """Raised tokens → logits, verbatim, for a feature that raises no whole word."""
    bare = {token.text.strip(): token.logit for token in reversed(raised)}
    return {
        text: logit
        for text, logit in bare.items()
        if logit > 0 and _fits_a_name(text) and not SPECIAL.search(text)
    }


def analysis(evidence: LabelEvidence, background: WordCounts) -> str:
    """Sentences on where it fires, on which tokens, what it raises, and whether these agree."""
    sentences = [
        _domains(evidence.rates),
        _peaks(evidence.contexts),
        _raises(evidence.raised),
        _agreement(evidence, background),
    ]
    return " ".join(filter(None, sentences))


def _domains(rates: Mapping[str, float]) -> str:
    order = sorted((domain for domain in rates if domain), key=lambda d: (-rates[d], d))
    if not order or rates[order[0]] <= 0:
        return ""
    if len(order) > 1 and rates[order[0]] == rates[order[-1]]:
        return f"It fires on {100 * rates[order[0]]:.2g} % of the tokens of every domain."
    most, least = ((printable(d), f"{100 * rates[d]:.2g} %") for d in (order[0], order[-1]))
    rest = f", and least on {least[0]}, {least[1]}" if len(order) > 1 else ""
    return f"It fires most on {most[0]}, {most[1]} of tokens{rest}."


def _peaks(contexts: Sequence[Context]) -> str:
    if not contexts:
        return "The evidence has no contexts."
    counts = Counter(context.tokens[context.peak] for context in contexts)
    shown = [f"{quoted(text)} ({n})" for text, n in counts.most_common(MOST_LISTED)]
    return f"In its top {len(contexts)} contexts, it peaks on {', '.join(shown)}."


def _raises(raised: Sequence[WrittenToken]) -> str:
    if not raised:
        return "The evidence has no promoted tokens."
    return f"It most strongly promotes {', '.join(quoted(t.text) for t in raised[:MOST_LISTED])}."


def _agreement(evidence: LabelEvidence, background: WordCounts) -> str:
    if not (evidence.contexts and evidence.raised):
        return ""
    near = words_in(evidence.contexts)
    words = [background.whole_word(token.text) for token in evidence.raised]
    both = [word for word in dict.fromkeys(words) if word in near]
    if not both:
        return "None of the words it promotes appears in the contexts."
    listed = ", ".join(quoted(word) for word in both[:MOST_LISTED])
    return f"Promoted words that also occur in the contexts: {listed}."


def quoted(text: str) -> str:
    """A token in quotation marks."""
    return f"“{printable(text)}”"


def printable(text: str) -> str:
    """The beginning of a text, with unprintable characters escaped."""
    cut = text if len(text) <= LONGEST else text[:LONGEST] + "…"
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in cut)
