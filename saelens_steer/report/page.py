"""Build plots/*.html and one self-contained report.html from a run folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import plotly.graph_objects as go
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from saelens_steer.evidence import PUSHES, edit_of
from saelens_steer.files import inside, write_text
from saelens_steer.report.compare_directions import comparison_figure, comparison_section
from saelens_steer.report.control_claims import baseline_section
from saelens_steer.report.feature_pages import features_section
from saelens_steer.report.figures import (
    claims_figure,
    interference_figure,
    scores_figure,
    validity_figure,
)
from saelens_steer.report.findings import (
    claims_section,
    dose_section,
    facts,
    rates_section,
)
from saelens_steer.report.labels import labels_section
from saelens_steer.report.markup import render
from saelens_steer.report.method import method_section, run_section, selection_section
from saelens_steer.report.run_folder import RunTables, claims_on, controls, read_run
from saelens_steer.report.sae import density_figure, frontier_figure, sae_section, training_figure
from saelens_steer.report.texts import completions_section, edits_section
from saelens_steer.report.theme import slug
from saelens_steer.report.topic_figures import topic_bars, topic_heatmap
from saelens_steer.report.tradeoffs import by_domain_figure, tradeoffs_figure, tradeoffs_section

CONFIG = {"displaylogo": False, "responsive": True}
SECTIONS = {
    "patches": ("Patched outputs", edits_section),
    "claims": ("Claims", claims_section),
    "dose": ("Dose-response", dose_section),
    "frozen_decoder_baseline": ("Untrained decoder", baseline_section),
    "compare_directions": ("Choosing", comparison_section),
    "tradeoffs": ("Damage", tradeoffs_section),
    "rates": ("Completions", rates_section),
    "texts": ("Side by side", completions_section),
    "sae": ("SAE", sae_section),
    "selection": ("Selection", selection_section),
    "labels": ("Labels", labels_section),
    "features": ("Features", features_section),
    "run": ("What was run", run_section),
    "method": ("Method", method_section),
}


def build_report(run_dir: Path, headline: str) -> Path:
    """Write plots/*.html and report.html into a finished run folder; returns report.html.

    headline: the answer in one sentence. Raises InputError if the folder has no summary.
    """
    run = read_run(Path(run_dir))
    write_plots(run)
    return write_text(run.path / "report.html", page(run, headline))


def page(run: RunTables, headline: str) -> str:
    """The whole report as one HTML text that loads nothing."""
    built = {name: build(run) for name, (_, build) in SECTIONS.items()}
    return render(
        "report.html",
        name=run.path.resolve().name,
        headline=headline,
        edit=None if edit_of(run.summary) in PUSHES else edit_of(run.summary),
        facts=facts(run),
        warnings=[*run.warnings, *(run.quality.get("warnings") or [])],
        links=[(name, SECTIONS[name][0]) for name, section in built.items() if section],
        sections=[Markup(section) for section in built.values() if section],
        scripts=True,
    )


def write_plots(run: RunTables) -> list[Path]:
    """Write each figure as a page in plots/; all share one plotly.min.js there."""
    write_text(inside(run.path, "plots/plotly.min.js"), get_plotlyjs())
    return [
        write_text(
            inside(run.path, f"plots/{name}.html"),
            figure.to_html(include_plotlyjs="directory", div_id=name, config=CONFIG),
        )
        for name, figure in plots(run)
    ]


def plots(run: RunTables) -> Iterator[tuple[str, go.Figure]]:
    """The figures of a run, with their file names."""
    about = {"claims": run.claims, "sides": run.sides, "labels": run.label_texts}
    for metric in run.logit_metrics:
        yield f"interference_{slug(metric)}", interference_figure(run.summary, metric, **about)
        if len(claims_on(run.claims, metric)) and len(controls(run.summary)):
            figure = claims_figure(run.claims, run.summary, metric, sides=run.sides)
            yield f"claims_{slug(metric)}", figure
    if run.text_metrics:
        yield "validity", validity_figure(run.summary, run.text_metrics, sides=run.sides)
    if len(run.training):
        yield "training", training_figure(run.training)
    if sum((run.quality.get("density") or {}).get("counts", [])):
        yield "density", density_figure(run.quality)
    if len(run.grid):
        yield "frontier", frontier_figure(run.grid)
    if len(run.comparison):
        yield "compare_directions", comparison_figure(run.comparison)
    if len(run.tradeoffs):
        yield "tradeoffs", tradeoffs_figure(run.tradeoffs)
    if len(run.tradeoffs_by_domain):
        yield "tradeoffs_by_domain", by_domain_figure(run.tradeoffs_by_domain, run.tradeoffs)
    if run.features.get("scores"):
        yield "scores", scores_figure(run.features)
    if run.feature_pages.get("pages") and run.feature_pages.get("topic"):
        yield "topic_heatmap", topic_heatmap(run.feature_pages)
        yield "topic_bars", topic_bars(run.feature_pages)


def write_figure(path: Path, figure: go.Figure) -> Path:
    """Write a figure as a page that loads nothing; returns `path`."""
    text = figure.to_html(include_plotlyjs=True, div_id=path.stem, config=CONFIG)
    return write_text(path, text)
