"""Labels, their files labels.json and labels.csv, and what a rerun may still add to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from saelens_steer.files import read_json
from saelens_steer.labels.labeller import Name
from saelens_steer.labels.neuronpedia import NeuronpediaLabel
from saelens_steer.labels.scores import LabelScore

LABELLED = "labelled"
HELP = {
    "refused": "fix label.server and rerun to retry, with label.server.ask_again=true if the model "
    "itself refused",
    "unanswered": "rerun to ask the unanswered questions again",
    "over_budget": "rerun to continue, within label.server.max_requests and max_tokens",
    "unreadable": "the answers are kept in .store/answers, and their questions are repeated only "
    "with label.server.ask_again=true; another label.server.model or a larger max_answer_tokens "
    "may help",
}
"""Each status that a rerun may change, and how."""
MOST_REASONS = 3
"""Reasons that `summary_of` spells out."""


@dataclass(frozen=True)
class Label:
    """A feature's name, and its scores."""

    feature: int
    side: str
    name: Name | None
    status: str
    """labelled, or the labeller's failure."""
    detail: str
    """Why naming failed, or a flaw in the answer."""
    effect: float | None
    """The steering effect score."""
    detection: LabelScore
    causal: LabelScore
    provider: str
    model: str | None


@dataclass(frozen=True)
class FeatureLabels:
    """The labels of one SAE's features."""

    layer: int
    labels: tuple[Label, ...]
    published: Mapping[int, NeuronpediaLabel]
    """Feature → Neuronpedia's label, if Neuronpedia covers the SAE."""

    @property
    def table(self) -> pd.DataFrame:
        """The rows of labels.csv, one per feature, with or without a label."""
        rows = [self._row(own) for own in self.labels]
        return pd.DataFrame(rows, columns=None if rows else ["layer", "feature", "label"])

    def to_json(self) -> dict[str, Any]:
        """The content of labels.json: layer → feature → interpretation, status, scores and more."""
        return {str(self.layer): {str(own.feature): self._entry(own) for own in self.labels}}

    def _entry(self, own: Label) -> dict[str, Any]:
        published = self.published.get(own.feature)
        return {
            "feature_number": own.feature,
            "layer": self.layer,
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

    def _row(self, own: Label) -> dict[str, Any]:
        published = self.published.get(own.feature)
        return {
            "layer": self.layer,
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


@dataclass(frozen=True)
class Missing:
    """A label or score that a rerun may add."""

    what: str
    """label, detection or causal."""
    status: str
    why: str
    feature: int


def unfinished(path: Path) -> list[Missing]:
    """The labels and scores missing from a labels.json that a rerun may add.

    Labels of Neuronpedia do not count.
    """
    data = read_json(path)
    return [
        Missing(what, found["status"], found["detail"], entry["feature_number"])
        for entries in data.values()
        for entry in entries.values()
        for what in ("label", "detection", "causal")
        if (found := entry if what == "label" else entry["scores"][what])["status"] in HELP
    ]


def summary_of(missing: Sequence[Missing]) -> list[str]:
    """One line per reason, the most frequent first, then how to fix each."""
    groups: dict[tuple[str, str, str], list[int]] = {}
    for one in missing:
        groups.setdefault((one.what, one.status, one.why), []).append(one.feature)
    order = sorted(groups.items(), key=lambda group: -len(group[1]))
    lines = []
    for (what, status, why), features in order[:MOST_REASONS]:
        n = len(features)
        which = f"feature {features[0]}" if n == 1 else f"{n} features, such as {features[0]}"
        lines.append(f"{what} {status.replace('_', ' ')} for {which}: {why}")
    if len(order) > MOST_REASONS:
        lines.append(
            f"and {len(order) - MOST_REASONS} other reasons: see the detail columns of labels.csv"
        )
    return [*lines, *dict.fromkeys(HELP[one.status] for one in missing)]
