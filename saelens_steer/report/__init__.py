"""Plots and one self-contained HTML page from a finished run folder."""

from saelens_steer.report.feature_pages import ShownFeatures, features_page
from saelens_steer.report.figures import (
    claims_figure,
    interference_figure,
    scores_figure,
    validity_figure,
)
from saelens_steer.report.images import export_images
from saelens_steer.report.page import build_report, write_figure
from saelens_steer.report.sae_figures import density_figure, frontier_figure, training_figure

__all__ = [
    "ShownFeatures",
    "build_report",
    "claims_figure",
    "density_figure",
    "export_images",
    "features_page",
    "frontier_figure",
    "interference_figure",
    "scores_figure",
    "training_figure",
    "validity_figure",
    "write_figure",
]
