"""labels.json and labels.csv."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from saelens_steer.labels.naming import TO_BE_ASKED, Label
from saelens_steer.labels.neuronpedia import Published
from saelens_steer.labels.scores import Score


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
    return pd.DataFrame([_row(layer, own, published.get(own.feature)) for own in labels])


def unfinished(path: Path) -> list[str]:
    """Of a labels.json what the next try may change: a word on each, with its feature. An SAE's
    page elsewhere that was not reached is none of it."""
    data = json.loads(path.read_text(encoding="utf-8"))
    return [
        f"feature {entry['feature_number']}: {what} {status}"
        for entries in data.values()
        for entry in entries.values()
        for what, status in _statuses(entry)
        if status in TO_BE_ASKED
    ]


def _statuses(entry: Mapping[str, Any]) -> list[tuple[str, str]]:
    scores = [(key, entry["scores"][key]["status"]) for key in ("detection", "causal")]
    return [("label", entry["status"]), *scores]


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
        "provider": own.provider,
        "model": own.model,
        "neuronpedia_url": published.url if published else None,
        "neuronpedia_label": published.label if published else None,
    }


def _columns(name: str, score: Score) -> dict[str, Any]:
    return {
        name: score.accuracy,
        f"{name}_ci_low": score.ci_low,
        f"{name}_ci_high": score.ci_high,
        f"{name}_n": score.n,
        f"{name}_p_value": score.p_value,
        f"{name}_status": score.status,
    }
