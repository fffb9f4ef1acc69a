"""A made-up labels.json: good and poor scores, rows that failed, and hostile texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HOSTILE = (
    "<!--<script>",
    "</script><img src=x onerror=alert(1)>",
    "\"><b title='x' onmouseover=alert(2)>",
    "<b>bold</b> %{x} &amp; \u202e\x00\t",
    "$label {} \ud83d \u2028 Donaudampfschifffahrtsgesellschaft" + "skapitänsmütze" * 12,
)
MODEL = "Qwen/Qwen2.5-7B-Instruct"
SITE = "https://www.neuronpedia.org/gpt2-small/6-res-jb"
FAILED = {
    "unreadable": "The answer was no JSON object.",
    "unanswered": "The provider did not answer within 60 seconds.",
    "refused": "The provider answered 403.",
    "over_budget": "",
    "no_evidence": "The feature fires on no token of the selection prompts.",
}
WITHOUT = (154, 203, 377, 402, 511)
"""The features that have no label."""
ANALYSIS = (
    "It fires on `def` and on the name that follows it, and hardly on anything else.\n\n"
    "Steered texts open a code block more often than the unsteered ones do."
)


def score(correct: int, low: float, high: float, n: int = 20) -> dict[str, Any]:
    """A score that was measured."""
    measured = {"correct": correct, "n": n, "accuracy": correct / n, "ci_low": low}
    rest = {"ci_high": high, "chance": 0.5, "p_value": 0.0013}
    return {"status": "scored", "detail": "", **measured, **rest}


def no_score(status: str, detail: str = "") -> dict[str, Any]:
    """A score that could not be had."""
    numbers = dict.fromkeys(("correct", "n", "accuracy", "ci_low", "ci_high", "p_value"))
    return {"status": status, "detail": detail, "chance": 0.5, **numbers}


def entry(feature: int, text: str | None = None, **changed: Any) -> dict[str, Any]:
    """What one feature has: without a text, a row that failed."""
    bare = no_score("no_label")
    scores = {"steering_effect": 0.71, "detection": score(17, 0.62, 0.97)}
    scores["causal"] = score(11, 0.32, 0.77)
    own = {
        "feature_number": feature,
        "layer": 4,
        "side": "code",
        "interpretation": text,
        "analysis": ANALYSIS if text else "",
        "status": "labelled" if text else "unanswered",
        "detail": "" if text else FAILED["unanswered"],
        "provider": "openai-compatible",
        "model": MODEL,
        "scores": scores if text else {"steering_effect": None, "detection": bare, "causal": bare},
        "neuronpedia": None,
    }
    return {**own, **changed}


def elsewhere(feature: int, label: str | None, status: str = "found") -> dict[str, Any]:
    """A feature's place on Neuronpedia."""
    return {"url": f"{SITE}/{feature}", "label": label, "status": status}


def labels() -> dict[int, dict[str, Any]]:
    """Feature → entry, in the order of the file."""
    few = no_score("too_few", "Only 3 contexts are there; it takes 8.")
    poor = {"steering_effect": 0.08, "detection": score(3, 0.03, 0.38), "causal": few}
    part = {"steering_effect": 0.5, "detection": few, "causal": score(16, 0.56, 0.94)}
    own = [
        entry(12, "Python function definitions", neuronpedia=elsewhere(12, "def keywords")),
        entry(87, "Lists of numbers that a program adds up in a loop, and their sums", scores=part),
        entry(101, "Words", scores=poor, neuronpedia=elsewhere(101, None, "none")),
        *(
            entry(feature, status=status, detail=FAILED[status])
            for feature, status in zip(WITHOUT, FAILED, strict=True)
        ),
        *(_hostile(f, text) for f, text in zip((3, 45, 199, 268, 333), HOSTILE, strict=True)),
    ]
    return {one["feature_number"]: one for one in own}


def _hostile(feature: int, text: str) -> dict[str, Any]:
    """An entry whose every text is hostile."""
    place = {"url": f'javascript:alert("{text}")', "label": text, "status": "found"}
    bad = no_score(text, text)
    scores = {"steering_effect": 0.2, "detection": bad, "causal": score(12, 0.36, 0.81)}
    about = {"analysis": 3 * text, "detail": text, "side": text, "model": text}
    return entry(feature, text, scores=scores, neuronpedia=place, **about)


def write_labels(folder: Path, own: dict[int, dict[str, Any]] | None = None) -> None:
    """Into a run folder."""
    data = {"4": {str(feature): one for feature, one in (own or labels()).items()}}
    (folder / "labels.json").write_text(json.dumps(data), encoding="utf-8")
