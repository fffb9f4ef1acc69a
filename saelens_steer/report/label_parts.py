"""Parts of a feature's label: whether its entry can be read, its text, its scores in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from saelens_steer.labels import SCORED
from saelens_steer.report.markup import esc
from saelens_steer.report.theme import clean, number, one_line, quoted

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
    text, place = entry.get("interpretation"), entry.get("neuronpedia")
    if not isinstance(text, str | None) or not isinstance(place, dict | None):
        return False
    own = [scores.get(kind) for kind in ("detection", "causal")]
    return all(
        isinstance(score, dict)
        and (
            score.get("status") != SCORED
            or all(isinstance(score.get(key), int | float) for key in MEASURED)
        )
        for score in own
    )


def label_of(entry: Entry) -> str:
    """The label on one line, or an empty string."""
    return one_line(entry.get("interpretation"))


def failure(status: Any, of: str = "texts") -> str:
    """Why there is no label or no score, in a few plain words; `of` completes “too few …”."""
    known = WORDS.get(str(status), "").format(of)
    return known or one_line(status).replace("_", " ") or "not recorded"


def why_not(entry: Entry) -> str:
    """Why a feature has no label, in words with all that is known. HTML."""
    detail = one_line(entry.get("detail"))
    rest = f": {esc(detail)}" if detail else ""
    return f'<span class="label why">{esc(failure(entry.get("status")))}{rest}</span>'


def label_below(text: str) -> str:
    """A label in small letters under a direction's name. HTML, empty without a label."""
    return f'<small class="label">{esc(quoted(text))}</small>' if text else ""


def label_title(entry: Entry) -> str:
    """The whole label in quotes, for the heading of a feature. HTML, empty without a label."""
    text = label_of(entry)
    return f' <span class="label">{esc(quoted(text, len(text)))}</span>' if text else ""


def label_body(entry: Entry) -> str:
    """The analysis behind a label and its tests, or why there is none, and Neuronpedia's. HTML."""
    if not entry:
        return ""
    reasons, place = analysis(entry), neuronpedia(entry)
    if label_of(entry):
        tests = ", ".join(f"{kind} {_tested(entry, kind)}" for kind in ("detection", "causal"))
        by = named_by(entry) or "nobody known"
        text = f"Named by {by}; {tests} (chance 50\u00a0%)."
        body = f'{reasons}<p class="note label">{esc(text)}</p>'
    else:
        body = f'<p class="note">No label: {why_not(entry)}</p>{reasons}'
    return body + (f'<p class="note">Neuronpedia: {place}</p>' if place else "")


def named_by(entry: Entry) -> str:
    """Provider and model of a label."""
    provider, model = one_line(entry.get("provider")), one_line(entry.get("model"))
    if provider == OFFLINE and not model:
        return "the offline provider"
    return f"{model} ({provider})" if model and provider else model or provider


def _tested(entry: Entry, kind: str) -> str:
    score = entry["scores"][kind]
    if score.get("status") != SCORED:
        return f"not tested: {failure(score.get('status'))}"
    return f"{rate(score)} of {score['n']}"


def rate(score: Entry) -> str:
    """How often the judge was right, with the interval, in percent."""
    share, low, high = (number(100 * score[k], 0) for k in ("accuracy", "ci_low", "ci_high"))
    return f"{share}\u00a0% [{low}, {high}]"


def analysis(entry: Entry) -> str:
    """The reasons given for a label, as a paragraph. HTML, empty without reasons."""
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
