"""Checks that an SAE fits: thresholds, and a sentence for each failure.

Figures stated for the SAE (see `promises.py`) are compared with the measured ones. The other
thresholds need no stated figures: they separate the right pairs of SAE and model from the wrong
ones that `python -m benchmarks.audit` makes; docs/how-to/sae.md reports its measurements.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from saelens_steer.numbers import percent
from saelens_steer.sae.promises import Promises

AUDIT = "audit.json"
"""The file in a run's SAE folder with the figures, failures and notes of the audit."""
FEWEST = 100
"""Tokens below which figures are too uncertain for a failure."""
LEAST_EXPLAINED = 0.3
"""Smallest explained variance that passes."""
SLOPE = (0.87, 1.25)
"""Range of the slope of x on x̂: an L1 penalty shrinks x̂, so it may lie further above 1.

Right pairs: 0.94 to 1.03. Halved decoders: 1.9; two active features instead of four: 1.3."""
BIAS = 0.18
"""Largest ‖mean (x − x̂)‖, in standard deviations of x. Right pairs: up to 0.10; without b_dec: from
0.23."""
DENSEST = 1.0
"""Largest L0 as a share of d_in."""
BETTER, BETTER_BOS = 1.15, 1.3
"""Unexplained variance relative to that at another hook, and to that with another number of BOS
tokens. BOS helps with texts that are cut in the middle too, so right pairs reach 1.2."""
UNEXPLAINED = 1.4
"""Unexplained variance relative to the stated one; using a base model instead of the fine-tuned one
is detected if its effect exceeds this."""
GAP = 0.02
"""Smallest difference of explained variance that counts; near 100 %, ratios mean little."""
L0_FACTOR, NORM_FACTOR = 1.75, 1.5
"""Factors by which L0 and the mean ‖x‖ may differ from the stated ones."""


Figures = Mapping[str, int | float]


@dataclass(frozen=True)
class Audit:
    """The fit of an SAE: figures, failures and what was not audited."""

    figures: Figures = field(default_factory=dict)
    """As in `fit_figures`; early_* at positions 1 to 7, first_norm at position 0, promised_*."""
    failures: tuple[str, ...] = ()
    """One sentence for each check that failed; empty if the SAE fits."""
    notes: tuple[str, ...] = ()
    """One sentence for each thing that was not audited."""

    @property
    def passed(self) -> bool:
        return not self.failures

    def __str__(self) -> str:
        known = self.figures
        about = []
        if "explained_variance" in known:
            about.append(
                f"the SAE explains {percent(known['explained_variance'])} of the variance of "
                f"{known['n_tokens']:,} tokens at L0 {known['l0']:.3g}"
            )
        return "; ".join([*self.failures, *about, *self.notes])


def judged_fit(figures: Mapping[str, Any], promised: Promises) -> Audit:
    """The audit of figures from `fit_figures`, without trials elsewhere."""
    numbers = {key: value for key, value in figures.items() if isinstance(value, int | float)}
    numbers |= {f"promised_{key}": value for key, value in promised.items()}
    return Audit(numbers, tuple(_failures(numbers, promised)))


def too_few(n: int) -> Audit:
    """The audit of too few tokens to measure a fit on."""
    return Audit(
        notes=(
            f"{n} tokens are too few to audit the fit, which needs {FEWEST}: give more or longer "
            "prompts, or check it with load_sae(…, model=model) (sae.load.corpus)",
        )
    )


def _failures(figures: Figures, promised: Promises) -> Iterator[str]:
    explained, l0 = figures["explained_variance"], figures["l0"]
    if not explained >= LEAST_EXPLAINED:
        yield (
            f"it explains {percent(explained)} of the variance, but SAEs that fit explain at "
            f"least {percent(LEAST_EXPLAINED)}: check model, hook and normalisation, and that "
            "the texts are like those it was trained on, or train it on more tokens"
        )
    elif (known := promised.get("explained_variance")) and more_unexplained(
        explained, known, UNEXPLAINED
    ):
        yield (
            f"it explains {percent(explained)} of the variance, but {percent(known)} in "
            "training: check that the texts are like those it was trained on, and that the model "
            "is the same one, not a base model or a fine-tuned one"
        )
    if (known := promised.get("l0")) and not _within(l0, known, L0_FACTOR):
        yield (
            f"{l0:.3g} features are active per token, but {known:.3g} are stated for it: check k, "
            "threshold, architecture and the scale of the input"
        )
    elif l0 > DENSEST * figures["d_in"] or l0 == 0:
        yield (
            f"{l0:.3g} features are active per token at a width of {figures['d_in']}, which "
            "rules out a fit: check threshold and architecture"
        )
    if (known := promised.get("mean_norm")) and not _within(
        figures["mean_norm"], known, NORM_FACTOR
    ):
        yield (
            f"the mean norm of its input is {figures['mean_norm']:.3g}, but was {known:.3g} in "
            "training: check the scale of the input, and the hook"
        )
    yield from _unbalanced(figures)


def _unbalanced(figures: Figures) -> Iterator[str]:
    low, high = SLOPE
    if not low <= (slope := figures["slope"]) <= high:
        yield (
            f"its output should be multiplied by {slope:.2g} to fit best: check the scale of the "
            "input, k and the norms of W_dec"
        )
    if not figures["bias"] <= BIAS:
        yield (
            f"the mean of its output is off by {figures['bias']:.2g} times the standard deviation "
            "of x: check b_dec, apply_b_dec_to_input and the scale of the input"
        )


def more_unexplained(explained: float, known: float, factor: float) -> bool:
    """Whether the unexplained variance exceeds `factor` times that of `known`, and by over GAP."""
    return 1 - explained > factor * (1 - known) and known - explained > GAP


def _within(value: float, known: float, factor: float) -> bool:
    return known / factor <= value <= known * factor


def may_not_fit(failures: Iterable[str], notes: Iterable[str] = ()) -> list[str]:
    """A warning for each failure of an audit, and for each thing that it did not audit."""
    failed = [f"The SAE may not fit the model or the hook: {failure}." for failure in failures]
    return failed + [f"Whether the SAE fits was not checked: {note}." for note in notes]
