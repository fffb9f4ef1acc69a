"""Feature labels, with the tests of how far they can be trusted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from saelens_steer.labels import CHANCE, LABELLED, SCORED
from saelens_steer.numbers import number, short
from saelens_steer.report.markup import render
from saelens_steer.report.run_folder import RunTables
from saelens_steer.report.theme import clean, one_line

Entry = Mapping[str, Any]
"""The entry of one feature in labels.json."""
OFFLINE = "offline"
WORDS = {
    "unreadable": "unreadable answer",
    "unanswered": "not answered",
    "refused": "refused",
    "over_budget": "budget exhausted",
    "no_evidence": "no evidence to label it from",
    "no_label": "no label to judge",
    "too_few": "too few {}",
    "none": "no label there",
    "unreached": "unreachable",
}
"""Reasons for a missing label or score."""


def labels_section(run: RunTables) -> str:
    """The section of the report; empty if the run labelled no features."""
    entries = list(run.labels.values())
    if not entries:
        return ""
    who = "; ".join(dict.fromkeys(filter(None, map(named_by, entries))))
    good = [sum(is_good(e["scores"][kind]) for e in entries) for kind in ("detection", "causal")]
    return render(
        "labels.html",
        rows=[shown(entry) | {"feature": feature} for feature, entry in run.labels.items()],
        pages={page["feature"] for page in run.feature_pages.get("pages", [])},
        who=who or "an unnamed provider",
        good=good,
        offline=any(entry.get("provider") == OFFLINE for entry in entries),
    )


def is_good(score: Entry) -> bool:
    """Whether a score's whole interval lies above chance."""
    return score.get("status") == SCORED and score["ci_low"] > CHANCE


def shown(entry: Entry) -> dict[str, Any]:
    """An entry of labels.json as the templates show it."""
    scores, text = entry["scores"], one_line(entry.get("interpretation"))
    return {
        "text": text,
        "side": one_line(entry.get("side")),
        "missing": not text or entry.get("status") != LABELLED,
        "why": failure(entry.get("status")),
        "detail": one_line(entry.get("detail")),
        "analysis": clean(entry.get("analysis")).strip(),
        "named_by": named_by(entry),
        "effect": scores.get("steering_effect"),
        "detection": _score(scores["detection"], "contexts"),
        "causal": _score(scores["causal"], "texts"),
        "neuronpedia": _neuronpedia(entry.get("neuronpedia") or {}),
    }


def failure(status: Any, of: str = "texts") -> str:
    """The reason for a missing label or score in plain words; `of` completes “too few …”."""
    known = WORDS.get(str(status), "").format(of)
    return known or one_line(status).replace("_", " ") or "not recorded"


def named_by(entry: Entry) -> str:
    """Provider and model of a label."""
    provider, model = one_line(entry.get("provider")), one_line(entry.get("model"))
    if provider == OFFLINE and not model:
        return "the offline provider"
    return f"{model} ({provider})" if model and provider else model or provider


def _score(score: Entry, of: str) -> dict[str, Any]:
    """The share of correct answers, or why there is none; `detail` is shown on hover."""
    if score.get("status") != SCORED:
        detail, status = one_line(score.get("detail")), score.get("status")
        return {
            "rate": "",
            "detail": detail,
            "why": failure(status, of),
            "briefly": failure(status),
        }
    right = f"{short(score['correct'])} of {short(score['n'])} right, "
    right += f"p {number(score.get('p_value'), 4)}"
    kind = "good" if is_good(score) else "quiet"
    if score["ci_high"] < CHANCE:
        kind, right = "warn", f"{right}: worse than guessing"
    share, low, high = (number(100 * score[k], 0) for k in ("accuracy", "ci_low", "ci_high"))
    about = {"rate": f"{share}\u00a0% [{low}, {high}]", "detail": right, "kind": kind}
    return about | {"accuracy": score["accuracy"], "n": score["n"]}


def _neuronpedia(place: Entry) -> dict[str, str]:
    """The label on Neuronpedia, or why there is none, with the page's address if it is https."""
    if not place:
        return {}
    label, found = one_line(place.get("label")), place.get("status") == "found"
    words = (label or "a page without a label") if found else failure(place.get("status"))
    url = str(place.get("url") or "")
    return {"words": words, "url": url if url.startswith("https://") else ""}
