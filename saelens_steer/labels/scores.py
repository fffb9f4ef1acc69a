"""Scores for how far a label can be trusted, each with its chance level and an interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy

from saelens_steer.files import digest
from saelens_steer.labels.labeller import BlindPair, HeldOutExamples, LabelError, Labeller, Name

SCORED = "scored"
CHANCE = 0.5
TOKEN_SHARE = 0.6
"""Weight of distinct tokens in the steering effect; distinct texts have the rest."""
FEWEST = 5
"""The fewest questions that give a score: fewer right answers can be luck (five: p = 1/32)."""


@dataclass(frozen=True)
class LabelScore:
    """The number of two-way questions answered correctly, of n."""

    status: str
    """scored, too_few, no_label, or the labeller's failure."""
    detail: str = ""
    correct: int | None = None
    n: int | None = None
    accuracy: float | None = None
    ci_low: float | None = None
    """ci_low and ci_high: the exact 95 % interval (Clopper and Pearson)."""
    ci_high: float | None = None
    chance: float = CHANCE
    p_value: float | None = None
    """The probability that guessing does at least as well (exact, one-sided)."""


NO_LABEL = LabelScore("no_label", "there is no label to test")


def steering_effect(texts: Sequence[Sequence[int]]) -> float | None:
    """0.6 × distinct/total tokens, pooled over texts, + 0.4 × distinct/total texts; 0 to 1.

    `texts` are token ids; an empty text counts as a text. None without texts.
    """
    if not texts:
        return None
    tokens = [token for text in texts for token in text]
    distinct_tokens = len(set(tokens)) / len(tokens) if tokens else 0.0
    distinct_texts = len({tuple(text) for text in texts}) / len(texts)
    return TOKEN_SHARE * distinct_tokens + (1 - TOKEN_SHARE) * distinct_texts


def detection_score(labeller: Labeller, name: Name, trials: HeldOutExamples) -> LabelScore:
    """How well the name predicts in which held-out contexts the feature fires; it does in half.

    All contexts are judged in one question, in a fixed shuffled order. If there are more firing
    contexts than silent ones, those used are spread from large activations to small ones.
    """
    n = min(len(trials.firing), len(trials.silent))
    if 2 * n < FEWEST:
        why = f"{len(trials.firing)} firing and {len(trials.silent)} silent contexts are held out"
        return LabelScore("too_few", f"{why}; the score needs at least {(FEWEST + 1) // 2} of each")
    spread = np.linspace(0, len(trials.firing) - 1, n).round().astype(int)
    marked = [("".join(trials.firing[i].tokens), True) for i in spread]
    marked += [("".join(c.tokens), False) for c in trials.silent[:n]]
    marked.sort(key=lambda pair: digest("detection", pair[0]))
    try:
        firing = labeller.firing(name, [text for text, _ in marked])
    except LabelError as error:
        return LabelScore(error.status, str(error))
    return against_chance([(i in firing) == fires for i, (_, fires) in enumerate(marked)])


def causal_score(labeller: Labeller, name: Name, trials: HeldOutExamples) -> LabelScore:
    """How well the name tells which of two texts was steered along the feature.

    The other was steered along a random direction of the same norm. Pairs of equal texts have no
    answer and are left out. The feature's text comes first in a random half of the pairs.
    """
    pairs = [pair for pair in trials.pairs if pair.steered != pair.other]
    if len(pairs) < FEWEST:
        equal = len(trials.pairs) - len(pairs)
        why = f"{len(pairs)} pairs of texts differ and {equal} are equal"
        return LabelScore("too_few", f"{why}; the score needs at least {FEWEST} that differ")
    pairs.sort(key=lambda pair: digest("causal", pair.prompt, pair.steered))
    drawn = sorted(pairs, key=lambda pair: digest("first", pair.prompt, pair.steered, pair.other))
    first = [drawn.index(pair) < len(pairs) / 2 for pair in pairs]
    blind = [
        BlindPair(p.prompt, *((p.steered, p.other) if is_first else (p.other, p.steered)))
        for p, is_first in zip(pairs, first, strict=True)
    ]
    try:
        chosen = labeller.steered(name, blind)
    except LabelError as error:
        return LabelScore(error.status, str(error))
    return against_chance([one == right for one, right in zip(chosen, first, strict=True)])


def against_chance(right: Sequence[bool]) -> LabelScore:
    """The score of answers of which guessing would get half right."""
    n, correct = len(right), sum(right)
    test = scipy.stats.binomtest(correct, n, CHANCE, alternative="greater")
    both = scipy.stats.binomtest(correct, n, CHANCE).proportion_ci(0.95, method="exact")
    ends = float(both.low), float(both.high)
    return LabelScore(SCORED, "", correct, n, correct / n, *ends, CHANCE, float(test.pvalue))
