"""Self-tests of a config on its own model and prompts, and what a run of it would take."""

from saelens_steer.doctor.examination import examine
from saelens_steer.doctor.findings import HEADER, outcome
