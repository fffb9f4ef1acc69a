"""Names for features, from what fires them and what steering along them does; and their scores."""

from __future__ import annotations

from collections.abc import Iterable

from saelens_steer.config import LabelSpec
from saelens_steer.errors import InputError
from saelens_steer.labels.answers import Answers
from saelens_steer.labels.evidence import Case, Evidence, Pair, SteeredTexts, Trials
from saelens_steer.labels.labeller import Failed, Labeller, Name, Shown
from saelens_steer.labels.naming import Label, label_all
from saelens_steer.labels.neuronpedia import Neuronpedia, Published, neuronpedia
from saelens_steer.labels.offline import Offline
from saelens_steer.labels.scores import Score, steering_effect
from saelens_steer.labels.tables import labels_json, labels_table, unfinished


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


def labeller_of(spec: LabelSpec, answers: Answers, texts: Iterable[str]) -> Labeller:
    """Who names. `answers`: where those of a server are kept; `texts`: ordinary ones, which tell
    the offline labeller what words are common."""
    check_labeller(spec)
    if spec.server is None:
        return Offline.of(texts, spec.evidence)
    from saelens_steer.labels.client import Client
    from saelens_steer.labels.served import Served

    return Served(Client(spec.server, answers), spec.evidence, spec.example_chars)


__all__ = [
    "Answers",
    "Case",
    "Evidence",
    "Failed",
    "Label",
    "Labeller",
    "Name",
    "Neuronpedia",
    "Offline",
    "Pair",
    "Published",
    "Score",
    "Shown",
    "SteeredTexts",
    "Trials",
    "check_labeller",
    "label_all",
    "labeller_of",
    "labels_json",
    "labels_table",
    "neuronpedia",
    "steering_effect",
    "unfinished",
]
