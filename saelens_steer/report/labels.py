"""Short names of features beside how far they can be believed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from saelens_steer.labels import CHANCE, LABELLED, SCORED
from saelens_steer.report.label_parts import (
    OFFLINE,
    Entry,
    analysis,
    failure,
    label_of,
    named_by,
    neuronpedia,
    why_not,
)
from saelens_steer.report.markup import TableCell, badge, esc, pairs, section, table
from saelens_steer.report.run_folder import RunTables
from saelens_steer.report.theme import number, one_line, short

MISSING = -1.0
"""What a cell without a number sorts by."""
HEADERS = ["Feature", "Side", "Label", "Steering effect", "Detection", "Causal"]
TESTS = (
    "A label is a guess to be checked. Two tests of it: a judge who is told the label says which "
    "of some contexts the feature fires in and which are others (detection), and which of two "
    "texts of the same prompt was steered along the feature rather than along a random direction "
    "of the same size (causal). Chance is 50 %; the interval lies above it for"
)
MEANING = {
    "Intervals": "In brackets, exact binomial 95 % intervals. A score is marked where its whole "
    "interval lies above chance, and in another colour where it lies below: then the label says "
    "the wrong thing. Of forty labels that say nothing, each test is expected to mark one as good "
    "all the same.",
    "Causal": "The texts are those at the largest strength, a multiple of A_max. After each prompt "
    "the other text is steered along another random direction, as far.",
    "Steering effect": "From 0 to 1, how varied the steered texts are: 0.6 × distinct of all "
    "tokens + 0.4 × distinct of all texts. It does not depend on the label, and texts that "
    "steering leaves as they are have one too.",
}
"""What the numbers are."""
WITHOUT_MODEL = (
    "The names are made from words without a language model, and the judge looks for the words of "
    "the label: such a label says what is written, not what is meant."
)


def labels_section(run: RunTables) -> str:
    """The section of the report; empty where no feature was to be named."""
    entries = run.labels
    if not entries:
        return ""
    meaning = dict(MEANING)
    if any(entry.get("provider") == OFFLINE for entry in entries.values()):
        meaning["Offline"] = WITHOUT_MODEL
    known = pairs([(term, esc(text)) for term, text in meaning.items()], "method")
    return section("labels", "Labels", _lead(entries.values()), _table(run), known)


def _lead(entries: Iterable[Entry]) -> str:
    """Who named how many features, and how many of the names stood a test."""
    own = list(entries)
    n = sum(bool(label_of(entry)) for entry in own)
    who = "; ".join(dict.fromkeys(filter(None, map(named_by, own)))) or "an unnamed provider"
    detection, causal = (
        sum(is_good(entry["scores"][kind]) for entry in own) for kind in ("detection", "causal")
    )
    return (
        f"{n} of {len(own)} features have a short name, by {who}. {TESTS} {detection} of them in "
        f"detection and {causal} in the causal test."
    )


def _table(run: RunTables) -> str:
    elsewhere = any(entry.get("neuronpedia") for entry in run.labels.values())
    pages = {page["feature"] for page in run.feature_pages.get("pages", [])}
    rows = [
        _row(feature, entry, feature in pages)
        + ([TableCell(neuronpedia(entry) or "–")] if elsewhere else [])
        for feature, entry in run.labels.items()
    ]
    headers = [*HEADERS, *(["Neuronpedia"] if elsewhere else [])]
    return f'<div class="labels">{table("Labels of features", headers, rows)}</div>'


def _row(feature: int, entry: Entry, has_page: bool) -> list[TableCell]:
    name, scores = f"feature {feature}", entry["scores"]
    shown = f'<a href="#f{feature}"><b>{name}</b></a>' if has_page else f"<b>{name}</b>"
    effect, side = scores.get("steering_effect"), one_line(entry.get("side"))
    return [
        TableCell(shown, name),
        TableCell(f'<span class="brief">{esc(side or "–")}</span>', side),
        TableCell(_said(entry), label_of(entry)),
        TableCell(number(effect, 2), _sort(effect)),
        _score_cell(scores["detection"], "contexts"),
        _score_cell(scores["causal"], "texts"),
    ]


def _said(entry: Entry) -> str:
    """The label with its reasons folded under it, or why there is none."""
    text, status = label_of(entry), entry.get("status")
    said = f'<span class="label">{esc(text)}</span>' if text else ""
    said += why_not(entry) if not text or status != LABELLED else ""
    reasons = analysis(entry)
    return said + (f"<details><summary>Analysis</summary>{reasons}</details>" if reasons else "")


def _score_cell(score: Entry, of: str) -> TableCell:
    """How often the judge was right, or why that is not known, with the detail on hover."""
    if score.get("status") != SCORED:
        detail = one_line(score.get("detail"))
        title = f' title="{esc(detail)}"' if detail else ""
        words = esc(failure(score.get("status"), of))
        return TableCell(f'<small class="brief"{title}>{words}</small>', MISSING)
    low, high = (number(100 * score[end], 0) for end in ("ci_low", "ci_high"))
    text = f"{number(100 * score['accuracy'], 0)}\u00a0% [{low}, {high}]"
    n = short(score["n"])
    right = f"{short(score['correct'])} of {n} right, p {number(score.get('p_value'), 4)}"
    below = score["ci_high"] < CHANCE
    kind = "good" if is_good(score) else "warn" if below else "quiet"
    shown = badge(text, kind, f"{right}: worse than guessing" if below else right)
    return TableCell(f"{shown} <small>of\u00a0{n}</small>", _sort(score["accuracy"]))


def is_good(score: Entry) -> bool:
    """Whether a score's whole interval lies above chance."""
    return score.get("status") == SCORED and score["ci_low"] > CHANCE


def _sort(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else MISSING
