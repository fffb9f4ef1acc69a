"""Labels for features, from what activates them and what they write, and scores for the labels."""

from saelens_steer.labels.collect import EvidenceCollector, text_study
from saelens_steer.labels.labeller import LabelInputs
from saelens_steer.labels.labelling import make_labels
from saelens_steer.labels.results import LABELLED, summary_of, unfinished
from saelens_steer.labels.scores import CHANCE, SCORED
