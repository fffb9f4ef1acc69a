"""Plots and one self-contained HTML page from a finished run folder."""

from saelens_steer.report.figures import (
    claims_figure,
    interference_figure,
    scores_figure,
    training_figure,
    validity_figure,
)
from saelens_steer.report.page import build_report

__all__ = [
    "build_report",
    "claims_figure",
    "interference_figure",
    "scores_figure",
    "training_figure",
    "validity_figure",
]
