"""The SAE: verdict, quality figures, training curves, the frontier of a grid."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from saelens_steer.report.figures import base, legend_on_top, panels
from saelens_steer.report.markup import chart, render
from saelens_steer.report.method import QUALITY, QUALITY_FIRST
from saelens_steer.report.run_folder import RunTables
from saelens_steer.report.theme import (
    COLOURS,
    MUTED,
    NULL,
    SIDE_COLOURS,
    decimals,
    name_label,
    number,
    plain,
    short,
)

CURVES = {
    "loss": "Loss",
    "l0": "L0 (active features)",
    "explained_variance": "Explained variance",
}
FRONTIER = {"explained_variance": "Explained variance", "loss_recovered": "Loss recovered"}


def sae_section(run: RunTables) -> str:
    """The SAE's quality, firing rates, training curves and grid."""
    quality = run.quality
    numbers = {k: v for k, v in quality.items() if isinstance(v, int | float)}
    first = [k for k in QUALITY_FIRST if k in numbers]
    known = sorted(numbers, key=lambda k: list(QUALITY).index(k) if k in QUALITY else 99)
    counted = sum((quality.get("density") or {}).get("counts", []))
    return render(
        "sae.html",
        verdict=quality.get("verdict"),
        warnings=quality.get("warnings") or [],
        n_figures=len(numbers),
        first=[_figure(k, numbers[k]) for k in first],
        rest=[_figure(k, numbers[k]) for k in known if k not in first],
        density=chart("density", density_figure(quality)) if counted else None,
        curves=_curves(run.training),
        held_out=any(f"held_out_{c}" in run.training for c in CURVES if c in run.training),
        n_grid=len(run.grid),
        frontier=None if run.grid.empty else chart("frontier", frontier_figure(run.grid)),
    )


def _figure(name: str, value: int | float) -> tuple[str, int | float, str, str]:
    """Label, value, text and meaning of a measure: counts in full, others to three digits."""
    title, meaning = QUALITY.get(name, (name_label(name), ""))
    text = short(value) if float(value).is_integer() else number(value, decimals([value]))
    return title, value, text, meaning


def _curves(training: pd.DataFrame) -> list[tuple[str, dict[str, Any]]]:
    """A small figure for each curve that was logged."""
    charts = []
    for column in (c for c in CURVES if c in training.columns):
        plot, title = training_figure(training, [column]), CURVES[column]
        plot.layout.annotations = ()
        plot.update_layout(title_text=f"{title} against training tokens", height=236)
        plot.update_layout(margin={"l": 48, "r": 14, "b": 48})
        charts.append((title, chart(f"training-{column}", plot)))
    return charts


def training_figure(metrics: pd.DataFrame, columns: Iterable[str] = tuple(CURVES)) -> go.Figure:
    """The SAE's training: loss, L0 and explained variance (if logged) against tokens.

    Solid: the batches trained on; dotted: held-out activations, at the steps that measured them.
    """
    columns = [c for c in columns if c in metrics.columns]
    figure = panels([CURVES[c] for c in columns], "SAE training")
    for i, name in enumerate(columns, start=1):
        figure.add_trace(_curve(metrics, name, name_label(name)), row=1, col=i)
        if (held_out := f"held_out_{name}") in metrics.columns:
            trace = _curve(metrics, held_out, f"{name_label(name)}, held out", dotted=True)
            figure.add_trace(trace, row=1, col=i)
    figure.update_xaxes(title_text="Training tokens", tickformat="~s", nticks=5)
    if len(figure.data) > len(columns) > 1:  # under a single panel, a note explains the dots
        for trace, name in zip(figure.data, ("trained on", "held out"), strict=False):
            trace.update(showlegend=True, name=name)
        figure.update_layout(legend=legend_on_top() | {"x": 1, "xanchor": "right", "y": 1.12})
    return figure


def _curve(metrics: pd.DataFrame, column: str, label: str, dotted: bool = False) -> go.Scatter:
    own = metrics.dropna(subset=[column])
    line = {"color": SIDE_COLOURS[dotted], "width": 2, "dash": "dot" if dotted else None}
    return go.Scatter(
        x=list(own["tokens"] if "tokens" in own.columns else own.index),
        y=list(own[column]),
        mode="lines",
        line=line,
        name=label,
        showlegend=False,
        hovertemplate=label + "<br>%{x:,} tokens<br>%{y:.4g}<extra></extra>",
    )


def density_figure(quality: Mapping[str, Any]) -> go.Figure:
    """Histogram of firing rates on a logarithmic axis: features by the share of tokens."""
    edges, counts = quality["density"]["log10_edges"], quality["density"]["counts"]
    middles = [(low + high) / 2 for low, high in itertools.pairwise(edges)]
    shares = [f"{_share(10.0**a)} to {_share(10.0**b)}" for a, b in itertools.pairwise(edges)]
    figure = base(go.Figure(), "How often features fire", 300)
    bars = go.Bar(
        x=middles,
        y=counts,
        width=[edges[1] - edges[0]] * len(counts),
        marker={"color": SIDE_COLOURS[0], "line": {"color": "white", "width": 1}},
        customdata=shares,
        hovertemplate="%{customdata} of tokens<br>%{y} features<extra></extra>",
        showlegend=False,
    )
    figure.add_trace(bars)
    filled = [i for i, n in enumerate(counts) if n] or [0, len(counts) - 1]
    shown = range(int(edges[filled[0]] // 1), int(-(-edges[filled[-1] + 1] // 1)) + 1)
    figure.update_xaxes(
        title_text="Share of tokens on which a feature fires",
        tickvals=list(shown),
        ticktext=[_share(10.0**power) for power in shown],
        range=[shown[0], shown[-1] + 0.02],
    )
    figure.update_yaxes(title_text="Features")
    return figure.update_layout(bargap=0, margin={"t": 64, "r": 40})


def _share(share: float) -> str:
    percent = 100 * share
    return f"{percent:.3g} %" if percent >= 1e-4 else f"{percent:.0e} %"


def frontier_figure(grid: pd.DataFrame) -> go.Figure:
    """Explained variance and loss recovered against L0, for the SAEs of a grid.

    grid: grid.csv. One colour per architecture, its SAEs joined in the order of L0; up and to the
    left is better. Details are shown on hover.
    """
    figure = panels(list(FRONTIER.values()), "Sparsity against reconstruction: the grid of SAEs")
    for i, (name, own) in enumerate(grid.groupby("architecture", sort=False)):
        own = own.sort_values("l0")
        for column, measure in enumerate(FRONTIER, start=1):
            trace = go.Scatter(
                x=list(own["l0"]),
                y=list(own[measure]),
                mode="lines+markers",
                line={"color": COLOURS[i % len(COLOURS)], "width": 1.5},
                marker={"size": 9, "line": {"color": "white", "width": 1}},
                name=plain(name),
                legendgroup=str(i),
                showlegend=column == 1,
                text=[_about(row) for _, row in own.iterrows()],
                hovertemplate="%{text}<extra></extra>",
            )
            figure.add_trace(trace, row=1, col=column)
    figure.update_xaxes(title_text="L0 (active features per token)", rangemode="tozero")
    figure.update_yaxes(tickfont_color=MUTED, zerolinecolor=NULL)
    return figure.update_layout(legend=legend_on_top() | {"y": 1.14}, margin_t=104, height=430)


def _about(row: pd.Series) -> str:
    options = ", ".join(f"{k} {short(v)}" for k, v in json.loads(str(row["options"])).items())
    return "<br>".join(
        plain(text)
        for text in (
            f"{row['architecture']}: {options}",
            f"L0 {row['l0']:.1f}, explained variance {row['explained_variance']:.3f}",
            f"loss recovered {row['loss_recovered']:.4f}, KL recovered {row['kl_recovered']:.4f}",
            f"L1 {row['l1']:.3g}, squared error {row['mse']:.3g}",
            f"{row['dead_share']:.1%} dead, {row['dense_share']:.1%} dense",
        )
    )
