"""Self-tests of a config on its own model and prompts, and estimates of what a run needs."""

from saelens_steer.doctor.examination import examine
from saelens_steer.doctor.findings import HEADER, outcome
