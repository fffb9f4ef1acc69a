"""The page of a run."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pandas as pd

from saelens_steer.config import dump_config
from saelens_steer.evidence import headline
from saelens_steer.files import file_digest
from saelens_steer.pipeline.context import RunContext
from saelens_steer.pipeline.outputs import GRID_TABLE
from saelens_steer.pipeline.steps.sae import drop_stale_grid
from saelens_steer.progress import say
from saelens_steer.report import build_report

OPTIONAL = (
    "quality",
    "features",
    "label",
    "compare_edits",
    "compare_directions",
    "tradeoffs",
    "frozen_decoder_baseline",
)
"""Steps that a run may lack, and that the page shows."""


def report(run: RunContext) -> Path:
    """The page, and the plots."""
    optional = [run.keys.get(step) for step in OPTIONAL]
    inputs = [run.keys["sweep"], run.keys["select"], *optional, dump_config(run.spec)]
    drop_stale_grid(run)
    grid = run.steps.path(GRID_TABLE)
    inputs.append(file_digest(grid) if grid.exists() else None)
    outputs, beside = ["plots", "report.html"], ["report.pdf"]
    run.steps.do("report", inputs, outputs, partial(_report, run), beside)
    return run.steps.path("report.html")


def _report(run: RunContext) -> None:
    claims = pd.read_csv(run.steps.path("claims.csv"))
    summary = pd.read_csv(run.steps.path("interference.csv"))
    answer = headline(claims, summary)
    build_report(run.steps.folder, answer)
    say(answer)
    for warning in json.loads(run.steps.path("warnings.json").read_text(encoding="utf-8")):
        say(f"warning: {warning}")
