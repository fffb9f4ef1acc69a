"""Names for features, from what fires them and what steering along them does; and their scores."""

from saelens_steer.labels.evidence import Case, Evidence, Gathered, Pair, SteeredTexts, Trials
from saelens_steer.labels.labeller import Failed, Labeller, Name, Shown
from saelens_steer.labels.naming import Label, label_all
from saelens_steer.labels.offline import Offline
from saelens_steer.labels.scores import Score, steering_effect
from saelens_steer.labels.tables import said_of, unfinished
from saelens_steer.labels.work import Labelled, check_labeller, labelled

__all__ = [
    "Case",
    "Evidence",
    "Failed",
    "Gathered",
    "Label",
    "Labelled",
    "Labeller",
    "Name",
    "Offline",
    "Pair",
    "Score",
    "Shown",
    "SteeredTexts",
    "Trials",
    "check_labeller",
    "label_all",
    "labelled",
    "said_of",
    "steering_effect",
    "unfinished",
]
