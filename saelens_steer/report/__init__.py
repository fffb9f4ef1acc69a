"""Figures and self-contained HTML pages from a finished run folder."""

from saelens_steer.report.feature_pages import FeaturePages, features_page
from saelens_steer.report.figures import interference_figure
from saelens_steer.report.images import export_images
from saelens_steer.report.page import build_report, page, write_figure
from saelens_steer.report.run_folder import (
    metric_names,
    read_labels,
    read_lines,
    read_mapping,
    read_run,
    side_names,
)
from saelens_steer.report.sae import frontier_figure
from saelens_steer.report.theme import units_of
