"""How far a label can be believed: each score beside chance, with an interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

from saelens_steer.files import digest
from saelens_steer.labels.evidence import HeldOutExamples
from saelens_steer.labels.labeller import BlindPair, LabelError, Labeller, Name

SCORED = "scored"
CHANCE = 0.5
TOKEN_SHARE = 0.6
"""Weight of distinct tokens in the steering effect; the rest is that of distinct texts."""
FEWEST = 5
"""With fewer answers even a judge who is always right may be guessing (p = 1/32 with five)."""


@dataclass(frozen=True)
class LabelScore:
    """How many of n questions with two possible answers were answered correctly."""

    status: str
    """scored; too_few; no_label; or how asking failed."""
    detail: str = ""
    correct: int | None = None
    n: int | None = None
    accuracy: float | None = None
    ci_low: float | None = None
    """Ends of the exact 95 % interval (Clopper and Pearson)."""
    ci_high: float | None = None
    chance: float = CHANCE
    p_value: float | None = None
    """How often guessing does as well (exact, one-sided)."""


NO_LABEL = LabelScore("no_label", "there is no label to test")


def steering_effect(texts: Sequence[Sequence[int]]) -> float | None:
    """0.6 × distinct/total tokens, pooled, + 0.4 × distinct/total texts; 0 to 1.

    `texts`: the token ids of each steered text; an empty text counts as a text. None without texts.
    """
    if not texts:
        return None
    tokens = [token for text in texts for token in text]
    of_tokens = len(set(tokens)) / len(tokens) if tokens else 0.0
    of_texts = len({tuple(text) for text in texts}) / len(texts)
    return TOKEN_SHARE * of_tokens + (1 - TOKEN_SHARE) * of_texts


def detection_score(labeller: Labeller, name: Name, trials: HeldOutExamples) -> LabelScore:
    """Told the name, in which contexts does the feature fire? It fires in half of them.

    No context was shown to whoever named. All are judged at once, in a fixed shuffled order. If
    more contexts fire than are silent, those used spread from large activations to small ones.
    """
    n = min(len(trials.firing), len(trials.silent))
    if 2 * n < FEWEST:
        why = f"{len(trials.firing)} contexts that fire and {len(trials.silent)} that do not"
        return LabelScore("too_few", f"{why}, beside those that are shown")
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
    """Told the name, which of two texts was steered along the feature?

    The other was steered along a random direction of the same norm. Pairs of equal texts have no
    answer and are left out. The steered text comes first in half of the pairs, at random.
    """
    pairs = [pair for pair in trials.pairs if pair.steered != pair.other]
    if len(pairs) < FEWEST:
        equal = len(trials.pairs) - len(pairs)
        why = f"{len(pairs)} pairs of texts that differ, {equal} that are equal"
        return LabelScore("too_few", f"{why}; it takes {FEWEST}")
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
    """A score of answers that guessing gets right half of the time."""
    n, correct = len(right), sum(right)
    test = binomtest(correct, n, CHANCE, alternative="greater")
    both = binomtest(correct, n, CHANCE).proportion_ci(0.95, method="exact")
    ends = float(both.low), float(both.high)
    return LabelScore(SCORED, "", correct, n, correct / n, *ends, CHANCE, float(test.pvalue))
