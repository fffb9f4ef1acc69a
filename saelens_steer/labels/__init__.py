"""Names for features, from what fires them and what steering along them does; and their scores."""

from saelens_steer.labels.evidence import Gathered
from saelens_steer.labels.gather import EvidenceGathering, text_study
from saelens_steer.labels.naming import LABELLED
from saelens_steer.labels.scores import CHANCE, SCORED
from saelens_steer.labels.tables import said_of, unfinished
from saelens_steer.labels.work import Labelled, check_labeller, labelled
