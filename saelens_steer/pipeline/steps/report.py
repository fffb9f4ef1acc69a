"""The report of a run."""

from __future__ import annotations

from saelens_steer.evidence import headline
from saelens_steer.files import read_json
from saelens_steer.pipeline.context import RunContext
from saelens_steer.progress import say
from saelens_steer.report import build_report
from saelens_steer.tables import read_csv


def report(run: RunContext) -> None:
    """Write the report and its plots, and print the answer and the warnings."""
    claims = read_csv(run.folder.path("claims.csv"))
    summary = read_csv(run.folder.path("interference.csv"))
    answer = headline(claims, summary)
    build_report(run.folder.root, answer)
    say(answer)
    for warning in read_json(run.folder.path("warnings.json")):
        say(f"warning: {warning}")
