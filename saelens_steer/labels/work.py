"""From evidence to labels: features are named, names tested, published ones looked up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from saelens_steer.config import LabelSpec
from saelens_steer.errors import InputError
from saelens_steer.labels.client import Answers
from saelens_steer.labels.evidence import Gathered
from saelens_steer.labels.labeller import Labeller
from saelens_steer.labels.naming import Label, label_all
from saelens_steer.labels.neuronpedia import Neuronpedia, Published
from saelens_steer.labels.offline import OfflineLabeller
from saelens_steer.labels.tables import labels_json, labels_table
from saelens_steer.progress import progress, say


@dataclass(frozen=True)
class Labelled:
    """Features with their labels."""

    layer: int
    labels: tuple[Label, ...]
    published: Mapping[int, Published]
    """What Neuronpedia says, where it covers the SAE."""

    @property
    def table(self) -> pd.DataFrame:
        """The rows of labels.csv."""
        return labels_table(self.layer, self.labels, self.published)

    def to_json(self) -> dict[str, Any]:
        """The content of labels.json."""
        return labels_json(self.layer, self.labels, self.published)


def labelled(gathered: Gathered, spec: LabelSpec, kept: Path | None = None) -> Labelled:
    """Every feature with a label, or with a status that says why it has none.

    `kept`: the folder of answers that need not be asked for again.
    """
    answers, cases = Answers(kept), gathered.cases
    labeller = _labeller(spec, answers, gathered)
    at_once = spec.server.concurrency if spec.server else 1
    with progress("labels", len(cases)) as note:
        labels = label_all(labeller, cases, at_once, note)
    if spend := labeller.spent:
        say(f"labels: {spend}")
    features = [case.evidence.feature for case in cases]
    site = Neuronpedia.of(spec.neuronpedia, gathered.neuronpedia_id, answers)
    return Labelled(gathered.layer, tuple(labels), site.labels(features) if site else {})


def check_labeller(spec: LabelSpec) -> None:
    """Raise InputError where a server cannot be asked: no client installed, or no key set."""
    if spec.server is None:
        return
    try:
        from saelens_steer.labels.server import key_of
    except ImportError:
        raise InputError(
            "label.provider: openai-compatible needs the client: pip install 'saelens-steer[label]'"
        ) from None
    key_of(spec.server)


def _labeller(spec: LabelSpec, answers: Answers, gathered: Gathered) -> Labeller:
    check_labeller(spec)
    if spec.server is None:
        return OfflineLabeller.of(gathered.ordinary)
    from saelens_steer.labels.client import Client
    from saelens_steer.labels.server_labeller import ServerLabeller

    return ServerLabeller(Client(spec.server, answers))
