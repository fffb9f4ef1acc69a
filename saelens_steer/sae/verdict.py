"""A verdict on an SAE's quality figures, and warnings that name a remedy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from saelens_steer.files import read_json
from saelens_steer.numbers import percent

DEAD_SHARE, DENSE_SHARE = 0.2, 0.05
"""Shares of dead and of dense features above which there is a warning."""
RECOVERED, EXPLAINED = 0.9, 0.7
"""Shares of loss recovered and of variance explained below which there is a warning."""
FIRINGS = 50
"""Expected firings of an average feature below which silent features are not called dead."""
CROWDED = 0.25
"""Share of d_in above which L0 is hardly sparse."""
SETTLED = 0.5
"""Relative difference allowed between L0 in use and in training."""
OVERFIT = 0.05
"""Allowed drop of explained variance from training to held-out activations."""

QUALITY = "quality.json"
"""The file in an SAE's folder with its figures, verdict and warnings."""

Line = Mapping[str, Any]
Faults = list[tuple[str, str]]
"""What is wrong, and what to change in the training."""


def read_quality(folder: str | Path) -> dict[str, Any]:
    """The figures, verdict and warnings in an SAE's folder (quality.json); empty if missing."""
    return read_json(Path(folder) / QUALITY)


def judged(quality: Line, training: Sequence[Line] = ()) -> dict[str, Any]:
    """The content of quality.json: the figures of `sae_quality`, a verdict and warnings.

    training: the lines of metrics.jsonl, if the SAE was trained here.
    """
    warnings = _warnings(quality, training)
    return {**quality, "verdict": _verdict(quality, warnings), "warnings": warnings}


def _verdict(quality: Line, warnings: Sequence[str]) -> str:
    recovers, explains = quality["loss_recovered"] >= RECOVERED, quality["explained_variance"] > 0
    sparse = quality["l0"] <= 2 * CROWDED * quality["d_in"]
    grade = "Usable with care" if warnings else "Good"
    if not (recovers and explains and sparse):
        grade = "Poor"
    silent = f"silent on {quality['n_tokens']:,} tokens" if _too_few(quality) else "dead"
    return (
        f"{grade}: {percent(quality['loss_recovered'])} of the loss recovered at "
        f"L0 {quality['l0']:.3g}, {percent(quality['dead_share'])} of features {silent}."
    )


def _warnings(quality: Line, training: Sequence[Line]) -> list[str]:
    """What is wrong, with what to change in the training if the SAE was trained here."""
    found = _unsettled(quality, training)  # the cause of any other fault
    if not found:
        found = [*_recovery(quality), *_variance(quality), *_dead(quality), *_dense(quality)]
        found += [*_crowded(quality), *_overfit(training)]
    return [f"{fact}: {advice}" if training else fact for fact, advice in found]


def _unsettled(quality: Line, training: Sequence[Line]) -> Faults:
    """BatchTopK variants train with k but run with a learned threshold.

    If their L0 differs, the training figures do not describe the SAE in use.
    """
    trained = _last(training, "held_out_l0").get("held_out_l0")
    if trained is None or abs(quality["l0"] - trained) <= SETTLED * trained:
        return []
    fact = (
        f"L0 is {quality['l0']:.3g} in use but was {trained:.3g} in training, because the "
        "threshold that replaces k has not settled"
    )
    return [(fact, "train longer, or raise topk_threshold_lr")]


def _recovery(quality: Line) -> Faults:
    share = quality["loss_recovered"]
    if share >= RECOVERED or quality["explained_variance"] <= 0:
        return []
    more = "" if _full(quality) else "allow more active features (larger k, smaller penalty), "
    fact = f"the SAE recovers only {percent(share)} of the model's loss"
    return [(fact, f"{more}train longer, or use more features")]


def _variance(quality: Line) -> Faults:
    share = quality["explained_variance"]
    if share <= 0:
        fact = (
            "the SAE reconstructs activations no better than their mean does (explained variance "
            f"{share:.2g})"
        )
        return [(fact, "lower lr if training diverged, and otherwise train longer")]
    if share >= EXPLAINED or _recovery(quality):
        return []
    more = "" if _full(quality) else ", or allow more active features"
    fact = (
        f"the SAE explains only {percent(share)} of the variance, so the error term that edits "
        "preserve is large"
    )
    return [(fact, f"train longer{more}")]


def _dead(quality: Line) -> Faults:
    share, n = quality["dead_share"], quality["n_tokens"]
    if share <= DEAD_SHARE:
        return []
    if _too_few(quality):
        fact = (
            f"{percent(share)} of features are silent on the {n:,} tokens that the SAE was "
            "measured on, too few to call them dead"
        )
        return [(fact, "measure it on more text")]
    less = "" if _full(quality) else "lower the sparsity, "
    fact = f"{percent(share)} of features are dead (silent on {n:,} tokens)"
    return [(fact, f"{less}train longer, or use fewer features")]


def _full(quality: Line) -> bool:
    """Whether too many features are active already to recommend more."""
    return bool(_crowded(quality) or _dense(quality))


def _too_few(quality: Line) -> bool:
    """Whether there were too few tokens to tell silent features from dead ones."""
    return quality["n_tokens"] * quality["l0"] < FIRINGS * quality["d_sae"]


def _dense(quality: Line) -> Faults:
    share = quality["dense_share"]
    if share <= DENSE_SHARE:
        return []
    fact = (
        f"{percent(share)} of features fire on more than a tenth of all tokens, too often to mean "
        "one thing"
    )
    return [(fact, "raise the sparsity")]


def _crowded(quality: Line) -> Faults:
    width = quality["d_in"]
    if quality["l0"] <= CROWDED * width:
        return []
    fact = f"L0 is {quality['l0']:.3g} at a width of {width}, which is hardly sparse"
    return [(fact, "raise the sparsity, or lower k")]


def _overfit(training: Sequence[Line]) -> Faults:
    last = _last(training, "held_out_explained_variance")
    trained, held_out = (last.get(f"{part}explained_variance", 0.0) for part in ("", "held_out_"))
    if trained - held_out <= OVERFIT:
        return []
    fact = (
        f"the SAE explains {percent(trained)} of the variance of training activations but only "
        f"{percent(held_out)} of that of held-out ones"
    )
    return [(fact, "train on more tokens, or use fewer features")]


def _last(training: Sequence[Line], key: str) -> Line:
    """The last line that has this figure, or an empty one."""
    return next((line for line in reversed(training) if key in line), {})
