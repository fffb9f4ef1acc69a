"""The report of a run."""

from __future__ import annotations

import json

import pandas as pd

from saelens_steer.evidence import headline
from saelens_steer.pipeline.context import RunContext
from saelens_steer.progress import say
from saelens_steer.report import build_report


def report(run: RunContext) -> None:
    """Write the report and its plots, and print the answer and the warnings."""
    claims = pd.read_csv(run.folder.path("claims.csv"))
    summary = pd.read_csv(run.folder.path("interference.csv"))
    answer = headline(claims, summary)
    build_report(run.folder.root, answer)
    say(answer)
    for warning in json.loads(run.folder.path("warnings.json").read_text(encoding="utf-8")):
        say(f"warning: {warning}")
