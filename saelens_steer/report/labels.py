"""Labels of features, with the tests of how far they can be believed."""

from __future__ import annotations

from collections.abc import Sequence

from saelens_steer.labels import CHANCE, LABELLED, SCORED
from saelens_steer.report.label_parts import (
    OFFLINE,
    Entry,
    analysis,
    failure,
    label_of,
    named_by,
    neuronpedia,
    rate,
    why_not,
)
from saelens_steer.report.markup import (
    TableCell,
    badge,
    details,
    esc,
    feature_link,
    name_cell,
    number_cell,
    pairs,
    section,
    table,
)
from saelens_steer.report.run_folder import RunTables
from saelens_steer.report.theme import number, one_line, short

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
"""What each number means."""
WITHOUT_MODEL = (
    "The names are made from words without a language model, and the judge looks for the words of "
    "the label: such a label says what is written, not what is meant."
)


def labels_section(run: RunTables) -> str:
    """The section of the report; empty if no feature was to be labelled."""
    if not run.labels:
        return ""
    pages = {page["feature"] for page in run.feature_pages.get("pages", [])}
    rows = [_row(feature, entry, feature in pages) for feature, entry in run.labels.items()]
    headers = list(HEADERS)
    if any(entry.get("neuronpedia") for entry in run.labels.values()):
        headers.append("Neuronpedia")
        for row, entry in zip(rows, run.labels.values(), strict=True):
            row.append(TableCell(neuronpedia(entry) or "–"))
    shown = f'<div class="labels">{table("Labels of features", headers, rows)}</div>'
    offline = any(entry.get("provider") == OFFLINE for entry in run.labels.values())
    meaning = MEANING | ({"Offline": WITHOUT_MODEL} if offline else {})
    terms = pairs([(term, esc(text)) for term, text in meaning.items()], "method")
    return section("labels", "Labels", _lead(list(run.labels.values())), shown, terms)


def is_good(score: Entry) -> bool:
    """Whether a score's whole interval lies above chance."""
    return score.get("status") == SCORED and score["ci_low"] > CHANCE


def _lead(entries: Sequence[Entry]) -> str:
    """How many features have a label, by whom, and how many labels passed each test."""
    n = sum(bool(label_of(entry)) for entry in entries)
    who = "; ".join(dict.fromkeys(filter(None, map(named_by, entries)))) or "an unnamed provider"
    detection, causal = (
        sum(is_good(entry["scores"][kind]) for entry in entries) for kind in ("detection", "causal")
    )
    return (
        f"{n} of {len(entries)} features have a short name, by {who}. {TESTS} {detection} of them "
        f"in detection and {causal} in the causal test."
    )


def _row(feature: int, entry: Entry, has_page: bool) -> list[TableCell]:
    name, scores = f"feature {feature}", entry["scores"]
    effect, side = scores.get("steering_effect"), one_line(entry.get("side"))
    text, reasons = label_of(entry), analysis(entry)
    said = f'<span class="label">{esc(text)}</span>' if text else ""
    said += why_not(entry) if not text or entry.get("status") != LABELLED else ""
    said += details("Analysis", reasons) if reasons else ""
    return [
        feature_link(feature) if has_page else name_cell(name),
        TableCell(f'<span class="brief">{esc(side or "–")}</span>', side),
        TableCell(said, text),
        number_cell(effect, number(effect, 2)),
        _score_cell(scores["detection"], "contexts"),
        _score_cell(scores["causal"], "texts"),
    ]


def _score_cell(score: Entry, of: str) -> TableCell:
    """How often the judge was right, or why that is unknown, with the detail on hover."""
    if score.get("status") != SCORED:
        detail = one_line(score.get("detail"))
        title = f' title="{esc(detail)}"' if detail else ""
        words = esc(failure(score.get("status"), of))
        return number_cell(None, f'<small class="brief"{title}>{words}</small>')
    right = f"{short(score['correct'])} of {short(score['n'])} right, "
    right += f"p {number(score.get('p_value'), 4)}"
    kind = "good" if is_good(score) else "quiet"
    if score["ci_high"] < CHANCE:
        kind, right = "warn", f"{right}: worse than guessing"
    shown = f"{badge(rate(score), kind, right)} <small>of\u00a0{short(score['n'])}</small>"
    return number_cell(score["accuracy"], shown)
