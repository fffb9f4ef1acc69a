"""labels.json and labels.csv."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from saelens_steer.labels.naming import TO_BE_ASKED, Label
from saelens_steer.labels.neuronpedia import Published
from saelens_steer.labels.scores import LabelScore

SHOWN = 3
"""So many reasons are said."""
HELP = {
    "refused": "mend label.server, then the same command asks for what is missing",
    "unanswered": "the same command asks for what is missing",
    "over_budget": "the same command goes on, within label.server.max_requests and max_tokens",
    "unreadable": "another label.server.model or more max_answer_tokens may help; what it answered "
    "is in .store/answers",
}
"""What may change each status."""


def labels_json(
    layer: int, labels: Sequence[Label], published: Mapping[int, Published]
) -> dict[str, Any]:
    """layer → feature → number, layer, interpretation, status, scores and more."""
    entries = {str(own.feature): _entry(layer, own, published.get(own.feature)) for own in labels}
    return {str(layer): entries}


def labels_table(
    layer: int, labels: Sequence[Label], published: Mapping[int, Published]
) -> pd.DataFrame:
    """One row for each feature, those without a label too."""
    rows = [_row(layer, own, published.get(own.feature)) for own in labels]
    return pd.DataFrame(rows, columns=None if rows else ["layer", "feature", "label"])


@dataclass(frozen=True)
class Missing:
    """What the next try may change."""

    what: str
    """label, detection or causal."""
    status: str
    why: str
    feature: int


def unfinished(path: Path) -> list[Missing]:
    """What of a labels.json the next try may change.

    Neuronpedia's page is none of it, where it was not reached.
    """
    data = json.loads(path.read_text(encoding="utf-8"))
    return [
        Missing(what, said["status"], said["detail"], entry["feature_number"])
        for entries in data.values()
        for entry in entries.values()
        for what, said in (("label", entry), *_tests(entry))
        if said["status"] in TO_BE_ASKED
    ]


def _tests(entry: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [(key, entry["scores"][key]) for key in ("detection", "causal")]


def said_of(missing: Sequence[Missing]) -> list[str]:
    """A sentence for each reason, the most frequent first, and what may help."""
    groups: dict[tuple[str, str, str], list[int]] = {}
    for one in missing:
        groups.setdefault((one.what, one.status, one.why), []).append(one.feature)
    order = sorted(groups.items(), key=lambda group: -len(group[1]))
    lines = [_line(*key, features) for key, features in order[:SHOWN]]
    if len(order) > SHOWN:
        lines.append(f"and {len(order) - SHOWN} other reasons, in the detail of labels.csv")
    return [*lines, *dict.fromkeys(HELP[one.status] for one in missing)]


def _line(what: str, status: str, why: str, features: Sequence[int]) -> str:
    n = len(features)
    which = f"feature {features[0]}" if n == 1 else f"{n} features, such as {features[0]}"
    return f"{what} {status.replace('_', ' ')} for {which}: {why}"


def _entry(layer: int, own: Label, published: Published | None) -> dict[str, Any]:
    return {
        "feature_number": own.feature,
        "layer": layer,
        "side": own.side,
        "interpretation": own.name.summary if own.name else None,
        "analysis": own.name.analysis if own.name else "",
        "status": own.status,
        "detail": own.detail,
        "provider": own.provider,
        "model": own.model,
        "scores": {
            "steering_effect": own.effect,
            "detection": asdict(own.detection),
            "causal": asdict(own.causal),
        },
        "neuronpedia": asdict(published) if published else None,
    }


def _row(layer: int, own: Label, published: Published | None) -> dict[str, Any]:
    return {
        "layer": layer,
        "feature": own.feature,
        "label": own.name.summary if own.name else None,
        "steering_effect": own.effect,
        "status": own.status,
        "detail": own.detail,
        "side": own.side,
        **_columns("detection", own.detection),
        **_columns("causal", own.causal),
        "analysis": own.name.analysis if own.name else None,
        "provider": own.provider,
        "model": own.model,
        "neuronpedia_url": published.url if published else None,
        "neuronpedia_label": published.label if published else None,
    }


def _columns(name: str, score: LabelScore) -> dict[str, Any]:
    return {
        name: score.accuracy,
        f"{name}_ci_low": score.ci_low,
        f"{name}_ci_high": score.ci_high,
        f"{name}_n": score.n,
        f"{name}_p_value": score.p_value,
        f"{name}_status": score.status,
        f"{name}_detail": score.detail,
    }
