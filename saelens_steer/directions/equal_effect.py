"""Search for the strengths at which different edits have the same effect."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

TOLERANCE = 0.01
"""How far the effect may be off, relative to the target."""
ROUNDS = 40

EffectsOf = Callable[[Sequence[int], Sequence[float]], Sequence[float]]
"""(which edits, the step of each) ↦ the effect of each."""


def equal_effect_steps(
    effects_of: EffectsOf, n: int, target: float, first: float, longest: float
) -> list[float]:
    """The smallest step found for each of n edits whose effect is `target`.

    NaN if steps up to `longest` do not reach it, or if the effect jumps over it. All edits are
    searched together, each from `first` on by factors of 1.5, then within its bracket.
    """
    brackets, found = [_Bracket() for _ in range(n)], [np.nan] * n
    left = list(range(n))
    for _ in range(ROUNDS):
        if not left:
            break
        steps = [brackets[i].next(first, target) for i in left]
        effects = effects_of(left, steps)
        for i, step, effect in zip([*left], steps, effects, strict=True):
            done = abs(effect - target) <= TOLERANCE * target
            found[i] = step if done else found[i]
            brackets[i].note(step, effect, target)
            if done or (effect < target and 1.5 * step > longest):
                left.remove(i)
    return found


@dataclass
class _Bracket:
    """The effect is below the target at `low` and above it at `high`."""

    low: float = 0.0
    high: float = np.inf
    effect_low: float = 0.0
    effect_high: float = np.inf

    def next(self, first: float, target: float) -> float:
        """Grow until bracketed, then interpolate linearly, away from the ends."""
        if not np.isfinite(self.high):
            return 1.5 * self.low or first
        share = (target - self.effect_low) / (self.effect_high - self.effect_low)
        return self.low + float(np.clip(share, 0.1, 0.9)) * (self.high - self.low)

    def note(self, step: float, effect: float, target: float) -> None:
        if effect < target:
            self.low, self.effect_low = step, effect
        else:
            self.high, self.effect_high = step, effect
