"""The small parts of a feature's label: its shape, its words, and what stands beside a number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from saelens_steer.labels import SCORED
from saelens_steer.report.markup import esc
from saelens_steer.report.theme import clean, one_line, quoted

Entry = Mapping[str, Any]
"""What labels.json says of one feature."""
MEASURED = ("accuracy", "ci_low", "ci_high", "correct", "n")
"""The numbers of a score that was measured."""
OFFLINE = "offline"
WORDS = {
    "unreadable": "answer not readable",
    "unanswered": "not answered",
    "refused": "refused",
    "over_budget": "budget used up",
    "no_evidence": "nothing to go by",
    "no_label": "no label to judge",
    "too_few": "too few {}",
    "none": "no label there",
    "unreached": "not reached",
}
"""Why there is no label or no score."""


def is_label(named: tuple[str, Any]) -> bool:
    """Whether a feature's number and its entry have the shapes that the report reads."""
    feature, entry = named
    scores = entry.get("scores") if isinstance(entry, dict) else None
    if not isinstance(scores, dict) or not (feature.isdecimal() and len(feature) < 16):
        return False
    texts = isinstance(entry.get("interpretation"), str | None)
    place = isinstance(entry.get("neuronpedia"), dict | None)
    return texts and place and all(_is_score(scores.get(key)) for key in ("detection", "causal"))


def _is_score(score: Any) -> bool:
    if not isinstance(score, dict):
        return False
    measured = score.get("status") == SCORED
    return not measured or all(isinstance(score.get(key), int | float) for key in MEASURED)


def label_of(entry: Entry) -> str:
    """The label on one line, or an empty string."""
    return one_line(entry.get("interpretation"))


def failure(status: Any, of: str = "texts") -> str:
    """Why there is no label or no score, in a few plain words; `of` says what there are few of."""
    known = WORDS.get(str(status), "").format(of)
    return known or one_line(status).replace("_", " ") or "not recorded"


def why_not(entry: Entry) -> str:
    """Why a feature has no label, in words with all that is known. HTML."""
    detail = one_line(entry.get("detail"))
    rest = f": {esc(detail)}" if detail else ""
    return f'<span class="label why">{esc(failure(entry.get("status")))}{rest}</span>'


def label_below(text: str) -> str:
    """A label in small letters under a direction's name; nothing where there is none. HTML."""
    return f'<small class="label">{esc(quoted(text))}</small>' if text else ""


def label_title(entry: Entry) -> str:
    """A label in quotes, whole, for the heading of a feature; nothing where there is none. HTML."""
    text = label_of(entry)
    return f' <span class="label">{esc(quoted(text, len(text)))}</span>' if text else ""


def label_body(entry: Entry) -> str:
    """The analysis behind a label, or why there is none, and what Neuronpedia says. HTML."""
    if not entry:
        return ""
    parts = [] if label_of(entry) else [f'<p class="note">No label: {why_not(entry)}</p>']
    parts.append(analysis(entry))
    if label_of(entry):
        parts.append(f'<p class="note label">{esc(_tested(entry))}</p>')
    place = neuronpedia(entry)
    return "".join(parts) + (f'<p class="note">Neuronpedia: {place}</p>' if place else "")


def named_by(entry: Entry) -> str:
    """Provider and model of a label."""
    provider, model = one_line(entry.get("provider")), one_line(entry.get("model"))
    if provider == OFFLINE and not model:
        return "the offline provider"
    return f"{model} ({provider})" if model and provider else model or provider


def _tested(entry: Entry) -> str:
    """Who named it, and how the name stood its tests, in a sentence."""
    tests = [f"{kind} {_result(entry['scores'][kind])}" for kind in ("detection", "causal")]
    return f"Named by {named_by(entry) or 'nobody known'}; {', '.join(tests)} (chance 50\u00a0%)."


def _result(score: Entry) -> str:
    if score.get("status") != SCORED:
        return f"not tested: {failure(score.get('status'))}"
    low, high = (f"{100 * score[end]:.0f}" for end in ("ci_low", "ci_high"))
    return f"{100 * score['accuracy']:.0f}\u00a0% [{low}, {high}] of {score['n']}"


def analysis(entry: Entry) -> str:
    """The reasons given for a label, as a paragraph; nothing where there are none. HTML."""
    text = clean(entry.get("analysis")).strip()
    return f'<p class="analysis label">{esc(text)}</p>' if text else ""


def neuronpedia(entry: Entry) -> str:
    """A link to the feature's page on Neuronpedia under the label it has there. HTML."""
    place = entry.get("neuronpedia") or {}
    if not place:
        return ""
    label = one_line(place.get("label"))
    found = place.get("status") == "found"
    words = (label or "a page without a label") if found else failure(place.get("status"))
    url = str(place.get("url") or "")
    if not url.startswith("https://"):
        return f'<span class="label">{esc(words)}</span>'
    return f'<a class="label" href="{esc(url)}" rel="noreferrer">{esc(words)}</a>'
