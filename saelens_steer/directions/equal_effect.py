"""Find the strengths at which different edits have the same effect."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

TOLERANCE = 0.01
"""Largest relative error of the effect."""
ROUNDS = 40

EffectsOf = Callable[[Sequence[int], Sequence[float]], Sequence[float]]
"""(indices of edits, their steps) ↦ their effects."""


def equal_effect_steps(
    effects_of: EffectsOf, n: int, target: float, first: float, longest: float
) -> list[float]:
    """For each of n edits, the smallest step found with effect `target`.

    NaN if no step tried up to `longest` reaches it, if the effect jumps over it, or if an effect is
    not a number. All edits are searched together: from `first` by factors of 1.5, then within the
    bracket.
    """
    brackets, found = [_Bracket() for _ in range(n)], [np.nan] * n
    left = list(range(n))
    for _ in range(ROUNDS):
        if not left:
            break
        steps = [brackets[i].next(first, longest, target) for i in left]
        effects = effects_of(left, steps)
        for i, step, effect in zip([*left], steps, effects, strict=True):
            done = abs(effect - target) <= TOLERANCE * target
            found[i] = step if done else found[i]
            brackets[i].note(step, effect, target)
            if done or np.isnan(effect) or (effect < target and step >= longest):
                left.remove(i)
    return found


@dataclass
class _Bracket:
    """Steps with an effect below (`low`) and above (`high`) the target."""

    low: float = 0.0
    high: float = np.inf
    effect_low: float = 0.0
    effect_high: float = np.inf

    def next(self, first: float, longest: float, target: float) -> float:
        """Grow up to `longest` until bracketed, then interpolate, not too near the ends."""
        if not np.isfinite(self.high):
            return min(1.5 * self.low or first, longest)
        share = (target - self.effect_low) / (self.effect_high - self.effect_low)
        return self.low + float(np.clip(share, 0.1, 0.9)) * (self.high - self.low)

    def note(self, step: float, effect: float, target: float) -> None:
        if effect < target:
            self.low, self.effect_low = step, effect
        else:
            self.high, self.effect_high = step, effect
