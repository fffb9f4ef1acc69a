"""Build plots/*.html and one self-contained report.html from a run folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import plotly.graph_objects as go
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from saelens_steer.evidence import PUSHES, edit_of
from saelens_steer.file_names import file_name
from saelens_steer.files import inside, write_text
from saelens_steer.report import (
    compare_directions,
    feature_pages,
    figures,
    findings,
    labels,
    method,
    sae,
    texts,
    topic_figures,
    tradeoffs,
)
from saelens_steer.report.markup import render
from saelens_steer.report.run_folder import REPORT, RunTables, read_run

CONFIG = {"displaylogo": False, "responsive": True}
SECTIONS = {
    "patches": ("Edited outputs", texts.edits_section),
    "claims": ("Claims", findings.claims_section),
    "dose": ("Dose-response", findings.dose_section),
    "frozen_decoder_baseline": ("Frozen decoder", findings.baseline_section),
    "compare_directions": ("Choosing", compare_directions.comparison_section),
    "tradeoffs": ("Damage", tradeoffs.tradeoffs_section),
    "rates": ("Completions", findings.rates_section),
    "texts": ("Side by side", texts.completions_section),
    "sae": ("SAE", sae.sae_section),
    "selection": ("Selection", method.selection_section),
    "labels": ("Labels", labels.labels_section),
    "features": ("Features", feature_pages.features_section),
    "run": ("What was run", method.run_section),
    "method": ("Method", method.method_section),
}
"""The name of each section in the page → its name in the contents, and what builds it."""


def build_report(run_dir: Path, headline: str) -> Path:
    """Write plots/*.html and report.html into a finished run folder; returns report.html.

    headline: the answer in one sentence. Raises InputError if the folder has no summary.
    """
    run = read_run(Path(run_dir))
    write_plots(run)
    return write_text(run.path / REPORT, page(run, headline))


def page(run: RunTables, headline: str) -> str:
    """The whole report as one self-contained HTML text."""
    built = {name: build(run) for name, (_, build) in SECTIONS.items()}
    return render(
        "report.html",
        thing="feature" if run.tests_features else "direction",
        name=run.path.resolve().name,
        headline=headline,
        edit=None if edit_of(run.summary) in PUSHES else edit_of(run.summary),
        changed=texts.changed_texts(run),
        facts=findings.facts(run),
        warnings=[*run.misfits, *run.warnings, *(run.quality.get("warnings") or [])],
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
    for metric in run.logit_metrics:
        dose, reach = findings.dose_figures(run, metric)
        yield f"interference_{file_name(metric)}", dose
        if reach:
            yield f"claims_{file_name(metric)}", reach
    if run.text_metrics:
        yield "validity", figures.validity_figure(run.summary, run.text_metrics, run.sides)
    if len(run.training):
        yield "training", sae.training_figure(run.training)
    if sae.counted(run.quality):
        yield "density", sae.density_figure(run.quality)
    if len(run.grid):
        yield "frontier", sae.frontier_figure(run.grid)
    if len(run.comparison):
        yield "compare_directions", compare_directions.comparison_figure(run.comparison, run.units)
    if len(run.tradeoffs):
        yield "tradeoffs", tradeoffs.tradeoffs_figure(run.tradeoffs, run.units)
    if len(run.tradeoffs_by_domain):
        tables = run.tradeoffs_by_domain, run.tradeoffs
        yield "tradeoffs_by_domain", tradeoffs.by_domain_figure(*tables, run.units)
    if run.features.get("scores"):
        yield "scores", figures.scores_figure(run.features)
    if run.feature_pages.get("pages") and run.feature_pages.get("topic"):
        yield "topic_heatmap", topic_figures.topic_heatmap(run.feature_pages)
        yield "topic_bars", topic_figures.topic_bars(run.feature_pages)


def write_figure(path: Path, figure: go.Figure) -> Path:
    """Write a figure as a self-contained page; returns `path`."""
    text = figure.to_html(include_plotlyjs=True, div_id=path.stem, config=CONFIG)
    return write_text(path, text)
