"""The words that stand out where a feature fires, and in what it writes."""

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
from saelens_steer.labels.evidence import LabelEvidence, SteeredTexts

PARTS = re.compile(
    r"\\?[^\W\d_]+(?:['’][^\W\d_]+)*"  # a word, or a LaTeX command
    r"|(?P<mark>[^\w\s])(?P=mark)*"  # a mark, and as often as it is repeated
)
"""Parts that a name can be made of: no digits."""
ROLES = re.compile(r"^[ \t]*(?:system|user|assistant|model)[ \t]*$", re.MULTILINE)
"""A line of a chat template that says who speaks."""
SPECIAL = re.compile(r"<\|[^<>|\s]{1,40}\|>|</?(?:s|bos|eos|pad|unk|mask|(?:start|end)_of_turn)>")
"""How tokenizers write special tokens."""
BETWEEN = re.compile(r"[\s,;]")
"""Separators of the words of a name, which therefore cannot be in them."""
LONGEST = 32
"""Characters of the longest word that is taken for one."""
HERE, NEXT, NEAR = 1.0, 0.6, 0.3
"""Weight of a word under the peak, of the one to be written next, and of one beside them."""
FADING = 8
"""At this distance, in words, a word counts half of one that is near."""
RARELY = 0.01
"""Weight of a word that is as common elsewhere: used only if there is nothing else."""
OFTEN = 0.5
"""A word that this share of the steered texts gain is in them by no accident."""
MOST_SAID = 3
"""Tokens of one sort that the analysis names."""
CLEAR = 1.5
"""A token is clearly raised if its logit rises by this multiple of the largest fall: most of what
a decoder row does to the logits is chance, and chance goes both ways."""


class Part(NamedTuple):
    """A word or a mark, and where it stands in a text."""

    text: str
    start: int
    end: int

    @property
    def key(self) -> str:
        """What it is counted as: LaTeX commands tell capitals from small letters, words do not."""
        return self.text if self.text.startswith("\\") else self.text.lower()


def parts_of(text: str) -> list[Part]:
    """The words and marks of a text, in order; nothing of a chat template, nothing too long."""
    for pattern in (SPECIAL, ROLES):
        text = pattern.sub(lambda found: " " * len(found[0]), text)
    parts = (Part(found[0], *found.span()) for found in PARTS.finditer(text))
    return [part for part in parts if _fits(part.text)]


def _fits(text: str) -> bool:
    """Whether a name could hold it."""
    alone = text.isprintable() and not combining(text[:1] or " ")
    return alone and 0 < len(text) <= LONGEST and not BETWEEN.search(text)


def keys_of(text: str) -> list[str]:
    """What the words and marks of a text are counted as."""
    return [part.key for part in parts_of(text)]


def is_word(key: str) -> bool:
    """Whether it tells something alone: more than one letter, or a mark that is repeated."""
    return len(key) > 1


@dataclass(frozen=True)
class WordCounts:
    """How often words occur in ordinary texts, each as it is written there."""

    forms: Mapping[str, int]

    @classmethod
    def of(cls, texts: Iterable[str]) -> WordCounts:
        """Counted over all texts."""
        forms: Counter[str] = Counter()
        for text in texts:
            forms.update(part.text for part in parts_of(text))
        return cls(forms)

    @cached_property
    def counts(self) -> Mapping[str, int]:
        """How often each word occurs, however it is written."""
        counts: Counter[str] = Counter()
        for form, count in self.forms.items():
            counts[Part(form, 0, 0).key] += count
        return counts

    @cached_property
    def usual(self) -> Mapping[str, str]:
        """How each word is written most often."""
        rising = sorted(self.forms.items(), key=lambda form: (form[1], form[0]))
        return {Part(form, 0, 0).key: form for form, _ in rising}

    @cached_property
    def total(self) -> int:
        """How many words there are, repeated ones counted again."""
        return sum(self.forms.values())

    def chance(self, key: str, n_words: float = 1) -> float:
        """The probability of a word among n ordinary ones; one that never occurs counts a half."""
        rate = (self.counts.get(key, 0) + 0.5) / (self.total + 100)
        return 1 - (1 - rate) ** max(n_words, 1)

    def surprise(self, key: str) -> float:
        """How surprising a word is in a text, in nats."""
        return -log(self.chance(key))

    def whole_word(self, token: str) -> str | None:
        """The word or mark that a token is; None for parts of words, and for several at once.

        A token that begins with a space counts as a word unless a known word continues it.
        """
        bare = token.strip().strip("_▁")
        parts = parts_of(bare)
        if len(parts) != 1 or parts[0].text != bare:
            return None
        key = parts[0].key
        if key in self.counts:
            return key
        part_of_one = any(known.startswith(key) for known in self.counts)
        return key if token[0] in " _▁" and not part_of_one else None


def firing_scores(contexts: Sequence[Context], background: WordCounts) -> dict[str, float]:
    """Each word of some contexts: more if it is in many, near the peaks, and rare elsewhere."""
    own = [weights_of(context) for context in contexts]
    sizes = [max(c.activations[c.peak], 0.0) for c in contexts]
    n_words = sum(map(len, own)) / max(len(own), 1)
    scores = {}
    for key in sorted({key for weights in own for key in weights}):
        n = sum(key in weights for weights in own)
        support = sum(size * w.get(key, 0.0) for size, w in zip(sizes, own, strict=True))
        chance = background.chance(key, n_words)
        share = (n + chance) / (len(own) + 1)  # as if one more were like any text
        scores[key] = support / (sum(sizes) or 1.0) * max(log(share / chance), RARELY)
    return scores


def weights_of(context: Context) -> dict[str, float]:
    """How much each word of a context has to do with the feature, 0 to 1.

    The largest of: the activation on it, as a share of the peak's; that it is to be written next;
    that it is near.
    """
    found: dict[str, float] = {}
    ends = list(accumulate(len(token) for token in context.tokens))
    parts = _uncut(context, ends)
    following = bisect([part.start for part in parts], ends[context.peak] - 1)
    for place, part in enumerate(parts):
        distance = place - following if place >= following else following - 1 - place
        near = NEXT if place == following else NEAR * 0.5 ** (distance / FADING)
        weight = max(near, HERE * _activation(context, part, ends))
        found[part.key] = max(weight, found.get(part.key, 0.0))
    return found


def _activation(context: Context, part: Part, ends: list[int]) -> float:
    """The largest activation on a word, as a share of the peak's."""
    first, last = bisect(ends, part.start), bisect(ends, part.end - 1)
    peak = context.activations[context.peak]
    return max(context.activations[first : last + 1]) / peak if peak > 0 else 0.0


def _uncut(context: Context, ends: list[int]) -> list[Part]:
    """The words of a context, without those that continue outside it."""
    before, after = context.more
    return [
        part
        for part in parts_of("".join(context.tokens))
        if not (before and part.start == 0) and not (after and part.end == ends[-1])
    ]


def written_scores(
    raised: Sequence[WrittenToken], texts: Sequence[SteeredTexts], background: WordCounts
) -> dict[str, float]:
    """Each word that is written: its share of the largest logit, and of the steered texts."""
    scores = gains(texts)
    top = max((token.logit for token in raised), default=0.0)
    for token in raised:
        key = background.whole_word(token.text)
        if key and token.logit > 0:
            scores[key] = scores.get(key, 0.0) + token.logit / top
    return scores


def words_in(contexts: Sequence[Context]) -> set[str]:
    """All words of some contexts."""
    return {key for context in contexts for key in weights_of(context)}


def clearly_written(evidence: LabelEvidence, background: WordCounts) -> set[str]:
    """Words raised by much more than any is lowered, and such as many of the steered texts gain."""
    noise = max((-token.logit for token in evidence.lowered), default=0.0)
    clear = [token for token in evidence.raised if token.logit >= CLEAR * noise]
    words = {background.whole_word(token.text) for token in clear}
    gained = {key for key, share in gains(evidence.texts).items() if share >= OFTEN}
    return {word for word in words if word} | gained


def gains(texts: Sequence[SteeredTexts]) -> dict[str, float]:
    """Word → the share of the texts steered along the feature that hold it unlike the others."""
    found, n = Counter[str](), 0
    for text in texts:
        known = {*keys_of(text.prompt), *keys_of(text.original)}
        for written in (t for strength, t in text.steered.items() if strength > 0):
            found.update({*keys_of(written)} - known)
            n += 1
    return {key: count / n for key, count in found.items()}


def pieces(raised: Sequence[WrittenToken]) -> dict[str, float]:
    """The raised tokens as they are, for a feature that raises no word."""
    bare = {token.text.strip(): token.logit for token in reversed(raised)}
    return {
        text: logit
        for text, logit in bare.items()
        if logit > 0 and _fits(text) and not SPECIAL.search(text)
    }


def analysis(evidence: LabelEvidence, background: WordCounts) -> str:
    """Where it fires, at which tokens, what it raises, and whether the two agree."""
    said = [
        _where(evidence.rates),
        _peaks(evidence.contexts),
        _raises(evidence.raised),
        _agreement(evidence, background),
    ]
    return " ".join(sentence for sentence in said if sentence)


def _where(rates: Mapping[str, float]) -> str:
    order = sorted((domain for domain in rates if domain), key=lambda d: (-rates[d], d))
    if not order or rates[order[0]] <= 0:
        return ""
    most, least = ((printable(d), f"{100 * rates[d]:.2g} %") for d in (order[0], order[-1]))
    rest = f", and least on {least[0]}, {least[1]}" if len(order) > 1 else ""
    return f"It fires most on {most[0]}, {most[1]} of tokens{rest}."


def _peaks(contexts: Sequence[Context]) -> str:
    if not contexts:
        return "No context was looked at."
    counts = Counter(context.tokens[context.peak] for context in contexts)
    shown = [f"{quoted(text)} ({n})" for text, n in counts.most_common(MOST_SAID)]
    return f"The largest activations of {len(contexts)} contexts are at {', '.join(shown)}."


def _raises(raised: Sequence[WrittenToken]) -> str:
    if not raised:
        return "No token that it raises was looked at."
    return f"It raises most {', '.join(quoted(token.text) for token in raised[:MOST_SAID])}."


def _agreement(evidence: LabelEvidence, background: WordCounts) -> str:
    if not (evidence.contexts and evidence.raised):
        return ""
    near = words_in(evidence.contexts)
    words = [background.whole_word(token.text) for token in evidence.raised]
    both = [word for word in dict.fromkeys(words) if word in near]
    if not both:
        return "Of the words that it raises none stands in the contexts."
    return f"Of what it raises the contexts hold {', '.join(quoted(w) for w in both[:MOST_SAID])}."


def quoted(text: str) -> str:
    """A token between quotation marks."""
    return f"“{printable(text)}”"


def printable(text: str) -> str:
    """The beginning of a text on one line, with invisible characters escaped."""
    cut = text if len(text) <= LONGEST else text[:LONGEST] + "…"
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in cut)
