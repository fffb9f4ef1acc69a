"""The SAE: verdict, quality figures, training curves, the frontier of a grid."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from saelens_steer.numbers import percent, short
from saelens_steer.report import theme
from saelens_steer.report.markup import chart, render, small_chart
from saelens_steer.report.run_folder import RunTables
from saelens_steer.report.theme import SIDE_COLOURS, name_label, plain

CURVES = {
    "loss": "Loss",
    "l0": "L0 (active features)",
    "explained_variance": "Explained variance",
}
FRONTIER = {"explained_variance": "Explained variance", "loss_recovered": "Loss recovered"}


def sae_section(run: RunTables) -> str:
    """The SAE's quality, firing rates, training curves and grid; empty without an SAE."""
    if not run.has_sae:
        return ""
    quality = run.quality
    numbers = {k: v for k, v in quality.items() if isinstance(v, int | float)}
    logged = {c: title for c, title in CURVES.items() if c in run.training}
    return render(
        "sae.html",
        verdict=quality.get("verdict"),
        warnings=quality.get("warnings") or [],
        numbers=numbers,
        density=chart("density", density_figure(quality)) if counted(quality) else None,
        curves=[
            (
                title,
                small_chart(
                    f"training-{c}", training_figure(run.training, [c]), title, "training tokens"
                ),
            )
            for c, title in logged.items()
        ],
        held_out=any(f"held_out_{c}" in run.training for c in logged),
        n_grid=len(run.grid),
        frontier=chart("frontier", frontier_figure(run.grid)) if len(run.grid) else None,
    )


def counted(quality: Mapping[str, Any]) -> bool:
    """Whether any feature was counted in the histogram of firing rates."""
    return any((quality.get("density") or {}).get("counts", []))


def training_figure(metrics: pd.DataFrame, columns: Iterable[str] = tuple(CURVES)) -> go.Figure:
    """The SAE's training: loss, L0 and explained variance (if logged) against tokens.

    Solid: the batches trained on; dotted: held-out activations, at the steps that measured them.
    """
    columns = [c for c in columns if c in metrics]
    figure: Any = theme.panels([CURVES[c] for c in columns], "SAE training")
    for i, name in enumerate(columns, start=1):
        figure.add_trace(_curve(metrics, name, name_label(name)), row=1, col=i)
        if (held_out := f"held_out_{name}") in metrics:
            trace = _curve(metrics, held_out, f"{name_label(name)}, held out", dotted=True)
            figure.add_trace(trace, row=1, col=i)
    figure.update_xaxes(title_text="Training tokens", tickformat="~s", nticks=5)
    if len(figure.data) > len(columns) > 1:  # under a single panel, a note explains the dots
        for trace, name in zip(figure.data, ("trained on", "held out"), strict=False):
            trace.update(showlegend=True, name=name)
        figure.update_layout(legend={"x": 1, "xanchor": "right", "y": 1.12})
    return figure


def _curve(metrics: pd.DataFrame, column: str, label: str, dotted: bool = False) -> go.Scatter:
    own = metrics.dropna(subset=[column])
    return go.Scatter(
        x=list(own["tokens"] if "tokens" in own.columns else own.index),
        y=list(own[column]),
        mode="lines",
        line={"color": SIDE_COLOURS[dotted], "width": 2, "dash": "dot" if dotted else None},
        name=label,
        showlegend=False,
        hovertemplate=label + "<br>%{x:,} tokens<br>%{y:.4g}<extra></extra>",
    )


def density_figure(quality: Mapping[str, Any]) -> go.Figure:
    """Histogram of firing rates on a logarithmic axis: features by the share of tokens."""
    edges, counts = quality["density"]["log10_edges"], quality["density"]["counts"]
    bins = list(itertools.pairwise(edges))
    bars = go.Bar(
        x=[(low + high) / 2 for low, high in bins],
        y=counts,
        width=[edges[1] - edges[0]] * len(counts),
        marker={"color": SIDE_COLOURS[0], "line": {"color": "white", "width": 1}},
        customdata=[f"{_share(10.0**low)} to {_share(10.0**high)}" for low, high in bins],
        hovertemplate="%{customdata} of tokens<br>%{y} features<extra></extra>",
        showlegend=False,
    )
    figure = go.Figure(bars)
    filled = [i for i, n in enumerate(counts) if n] or [0, len(counts) - 1]
    shown = range(math.floor(edges[filled[0]]), math.ceil(edges[filled[-1] + 1]) + 1)
    figure.update_xaxes(
        title_text="Share of tokens on which a feature fires",
        tickvals=list(shown),
        ticktext=[_share(10.0**power) for power in shown],
        range=[shown[0], shown[-1] + 0.02],
    )
    figure.update_yaxes(title_text="Features")
    figure.update_layout(bargap=0, margin={"t": 64, "r": 40})
    return theme.base(figure, "How often features fire", 300)


def _share(share: float) -> str:
    of_100 = 100 * share
    return f"{of_100:.3g} %" if of_100 >= 1e-4 else f"{of_100:.0e} %"


def frontier_figure(grid: pd.DataFrame) -> go.Figure:
    """Explained variance and loss recovered against L0, for the SAEs of a grid.

    grid: grid.csv. One colour per architecture, its SAEs joined in the order of L0; up and to the
    left is better. Details are shown on hover.
    """
    title = "Sparsity against reconstruction: the grid of SAEs"
    figure = theme.panels(list(FRONTIER.values()), title)
    for i, (name, own) in enumerate(grid.groupby("architecture", sort=False)):
        own = own.sort_values("l0")
        for column, measure in enumerate(FRONTIER, start=1):
            figure.add_scatter(
                x=list(own["l0"]),
                y=list(own[measure]),
                mode="lines+markers",
                line={"color": theme.COLOURS[i % len(theme.COLOURS)], "width": 1.5},
                marker={"size": 9, "line": {"color": "white", "width": 1}},
                name=plain(name),
                legendgroup=str(i),
                showlegend=column == 1,
                text=[_about(row) for _, row in own.iterrows()],
                hovertemplate="%{text}<extra></extra>",
                row=1,
                col=column,
            )
    figure.update_xaxes(title_text="L0 (active features per token)", rangemode="tozero")
    figure.update_yaxes(tickfont_color=theme.MUTED, zerolinecolor=theme.NULL)
    return figure.update_layout(legend_y=1.14, margin_t=104, height=430)


def _about(row: Any) -> str:
    """The details of an SAE that are shown on hover."""
    options = ", ".join(f"{k} {short(v)}" for k, v in json.loads(str(row["options"])).items())
    lines = (
        f"{row['architecture']}: {options}",
        f"L0 {row['l0']:.1f}, explained variance {row['explained_variance']:.3f}",
        f"loss recovered {row['loss_recovered']:.4f}, KL recovered {row['kl_recovered']:.4f}",
        f"L1 {row['l1']:.3g}, squared error {row['mse']:.3g}",
        f"{percent(row['dead_share'])} dead, {percent(row['dense_share'])} dense",
    )
    return "<br>".join(map(plain, lines))
