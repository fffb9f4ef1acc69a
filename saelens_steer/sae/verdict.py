"""The verdict on an SAE's figures in plain words: whether to trust it, and what to do if not."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from saelens_steer.files import read_json

DEAD_SHARE, DENSE_SHARE = 0.2, 0.05
"""Shares of features that are worth a sentence."""
RECOVERED, EXPLAINED = 0.9, 0.7
"""Shares of loss and variance below which an SAE reconstructs too little."""
FIRINGS = 50
"""Firings expected of an average feature before a silent one is called dead."""
CROWDED = 0.25
"""An L0 above this share of d_in is hardly sparse."""
SETTLED = 0.5
"""L0 in use may differ from that in training by this share of it."""
OVERFIT = 0.05
"""Explained variance lost from training to held-out activations."""

QUALITY = "quality.json"
"""The file in an SAE's folder with its figures, verdict and warnings."""

Line = Mapping[str, Any]


def read_quality(folder: str | Path) -> dict[str, Any]:
    """The figures, verdict and warnings in an SAE's folder (quality.json); empty without them."""
    return read_json(Path(folder) / QUALITY)


def judged(quality: Line, training: Sequence[Line] = ()) -> dict[str, Any]:
    """The content of quality.json: the figures, with the verdict and the warnings on them."""
    warnings = _warnings(quality, training)
    return {**quality, "verdict": _verdict(quality, warnings), "warnings": warnings}


def _verdict(quality: Line, warnings: Sequence[str]) -> str:
    """One sentence on the whole SAE."""
    recovers, explains = quality["loss_recovered"] >= RECOVERED, quality["explained_variance"] > 0
    sparse = quality["l0"] <= 2 * CROWDED * quality["d_in"]
    found = "Usable with care" if warnings else "Good"
    if not (recovers and explains and sparse):
        found = "Poor"
    silent = f"silent on {quality['n_tokens']:,} tokens" if _too_few(quality) else "dead"
    return (
        f"{found}: {_percent(quality['loss_recovered'])} of the loss recovered at "
        f"L0 {quality['l0']:.3g}, {_percent(quality['dead_share'])} of features {silent}."
    )


def _warnings(quality: Line, training: Sequence[Line] = ()) -> list[str]:
    """The SAE's faults, each a sentence with its remedy; none if it is good.

    quality: as `sae_quality` gives it; training: the lines of metrics.jsonl.
    """
    if unsettled := _unsettled(quality, training):
        return [unsettled]  # all else follows from that
    found = [_recovery(quality), _variance(quality), _dead(quality), _dense(quality)]
    found += [_crowded(quality), _overfit(training)]
    return [sentence for sentence in found if sentence]


def _unsettled(quality: Line, training: Sequence[Line]) -> str:
    """BatchTopK and its kin train with k, but are used with a threshold learned meanwhile.

    If the two differ, figures of training do not hold for the SAE in use.
    """
    trained = _last(training, "held_out_l0").get("held_out_l0")
    if trained is None or abs(quality["l0"] - trained) <= SETTLED * trained:
        return ""
    return (
        f"on a token {quality['l0']:.3g} features are active where {trained:.3g} were in training: "
        "the threshold that the SAE is used with has not settled; train longer, or raise "
        "topk_threshold_lr"
    )


def _recovery(quality: Line) -> str:
    share = quality["loss_recovered"]
    if share >= RECOVERED or quality["explained_variance"] <= 0:
        return ""
    more = "" if _full(quality) else "let more features be active (a larger k, a smaller penalty), "
    return (
        f"the SAE recovers only {_percent(share)} of the model's loss: {more}train longer, or use "
        "more features"
    )


def _variance(quality: Line) -> str:
    share = quality["explained_variance"]
    if share <= 0:
        return (
            f"the SAE rebuilds activations no better than their mean does (explained variance "
            f"{share:.2g}): if training went astray, lower lr; else train longer"
        )
    if share >= EXPLAINED or _recovery(quality):
        return ""
    return (
        f"the SAE explains only {_percent(share)} of the variance: what edits through it keep as "
        "error is much of the activation; train longer or let more features be active"
    )


def _dead(quality: Line) -> str:
    share, n = quality["dead_share"], quality["n_tokens"]
    if share <= DEAD_SHARE:
        return ""
    if _too_few(quality):
        return (
            f"{_percent(share)} of features are silent on the {n:,} tokens that the SAE was "
            "measured on, too few to call them dead: measure it on more text"
        )
    less = "" if _full(quality) else "lower the sparsity, "
    return (
        f"{_percent(share)} of features are dead (silent on {n:,} tokens): {less}"
        "train longer, or use fewer features"
    )


def _full(quality: Line) -> bool:
    """Whether too many features are active to advise letting more be."""
    return bool(_crowded(quality) or _dense(quality))


def _too_few(quality: Line) -> bool:
    """Whether too few tokens were measured to tell silent features from dead ones."""
    return quality["n_tokens"] * quality["l0"] < FIRINGS * quality["d_sae"]


def _dense(quality: Line) -> str:
    share = quality["dense_share"]
    if share <= DENSE_SHARE:
        return ""
    return (
        f"{_percent(share)} of features fire on more than a tenth of all tokens, so they stand for "
        "no one thing: raise the sparsity"
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
        f"the SAE explains {_percent(trained)} of the variance in training and "
        f"{_percent(held_out)} of activations held out: train on more tokens, or "
        "use fewer features"
    )


def _last(training: Sequence[Line], key: str) -> Line:
    """The last line that has this figure; empty if there is none."""
    return next((line for line in reversed(training) if key in line), {})


def _percent(share: float) -> str:
    """A share as a percentage that never rounds to none or to all."""
    if math.isnan(share):
        return "an unknown part"
    if 0 < share < 0.001:
        return "under 0.1 %"
    if 0.999 < share < 1:
        return "over 99.9 %"
    near = f"{100 * share:.0f}" in ("0", "100") and share not in (0, 1)
    return f"{100 * share:.3g} %" if near else f"{100 * share:.0f} %"
