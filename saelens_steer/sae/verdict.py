"""A verdict on an SAE's quality figures, and warnings that name a remedy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from saelens_steer.files import read_json

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
    if unsettled := _unsettled(quality, training):
        return [unsettled]  # the cause of any other fault
    found = [_recovery(quality), _variance(quality), _dead(quality), _dense(quality)]
    found += [_crowded(quality), _overfit(training)]
    return [sentence for sentence in found if sentence]


def _unsettled(quality: Line, training: Sequence[Line]) -> str:
    """BatchTopK variants train with k but run with a learned threshold.

    If their L0 differs, the training figures do not describe the SAE in use.
    """
    trained = _last(training, "held_out_l0").get("held_out_l0")
    if trained is None or abs(quality["l0"] - trained) <= SETTLED * trained:
        return ""
    return (
        f"L0 is {quality['l0']:.3g} in use but was {trained:.3g} in training, because the "
        "threshold that replaces k has not settled: train longer, or raise topk_threshold_lr"
    )


def _recovery(quality: Line) -> str:
    share = quality["loss_recovered"]
    if share >= RECOVERED or quality["explained_variance"] <= 0:
        return ""
    more = "" if _full(quality) else "allow more active features (larger k, smaller penalty), "
    return (
        f"the SAE recovers only {percent(share)} of the model's loss: {more}train longer, or use "
        "more features"
    )


def _variance(quality: Line) -> str:
    share = quality["explained_variance"]
    if share <= 0:
        return (
            "the SAE reconstructs activations no better than their mean does (explained variance "
            f"{share:.2g}): lower lr if training diverged, and otherwise train longer"
        )
    if share >= EXPLAINED or _recovery(quality):
        return ""
    more = "" if _full(quality) else ", or allow more active features"
    return (
        f"the SAE explains only {percent(share)} of the variance, so the error term that edits "
        f"preserve is large: train longer{more}"
    )


def _dead(quality: Line) -> str:
    share, n = quality["dead_share"], quality["n_tokens"]
    if share <= DEAD_SHARE:
        return ""
    if _too_few(quality):
        return (
            f"{percent(share)} of features are silent on the {n:,} tokens that the SAE was "
            "measured on, too few to call them dead: measure it on more text"
        )
    less = "" if _full(quality) else "lower the sparsity, "
    return (
        f"{percent(share)} of features are dead (silent on {n:,} tokens): {less}"
        "train longer, or use fewer features"
    )


def _full(quality: Line) -> bool:
    """Whether too many features are active already to recommend more."""
    return bool(_crowded(quality) or _dense(quality))


def _too_few(quality: Line) -> bool:
    """Whether there were too few tokens to tell silent features from dead ones."""
    return quality["n_tokens"] * quality["l0"] < FIRINGS * quality["d_sae"]


def _dense(quality: Line) -> str:
    share = quality["dense_share"]
    if share <= DENSE_SHARE:
        return ""
    return (
        f"{percent(share)} of features fire on more than a tenth of all tokens, too often to mean "
        "one thing: raise the sparsity"
    )


def _crowded(quality: Line) -> str:
    width = quality["d_in"]
    if quality["l0"] <= CROWDED * width:
        return ""
    return (
        f"L0 is {quality['l0']:.3g} at a width of {width}, which is hardly sparse: raise the "
        "sparsity, or lower k"
    )


def _overfit(training: Sequence[Line]) -> str:
    last = _last(training, "held_out_explained_variance")
    trained, held_out = (last.get(f"{part}explained_variance", 0.0) for part in ("", "held_out_"))
    if trained - held_out <= OVERFIT:
        return ""
    return (
        f"the SAE explains {percent(trained)} of the variance of training activations but only "
        f"{percent(held_out)} on held-out ones: train on more tokens, or use fewer features"
    )


def _last(training: Sequence[Line], key: str) -> Line:
    """The last line that has this figure, or an empty one."""
    return next((line for line in reversed(training) if key in line), {})


def percent(share: float) -> str:
    """A share as a percentage; only exact 0 and 1 appear as 0 % and 100 %."""
    if math.isnan(share):
        return "an unknown part"
    if 0 < share < 0.001:
        return "under 0.1 %"
    if 0.999 < share < 1:
        return "over 99.9 %"
    near = f"{100 * share:.0f}" in ("0", "100") and share not in (0, 1)
    return f"{100 * share:.3g} %" if near else f"{100 * share:.0f} %"
