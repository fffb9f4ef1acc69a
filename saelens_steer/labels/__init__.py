"""Names for features, from what fires them and what steering along them does; and their scores."""

from saelens_steer.labels.evidence import Case, Evidence, Gathered, Pair, SteeredTexts, Trials
from saelens_steer.labels.naming import LABELLED
from saelens_steer.labels.scores import CHANCE, SCORED, steering_effect
from saelens_steer.labels.tables import said_of, unfinished
from saelens_steer.labels.work import Labelled, check_labeller, labelled
