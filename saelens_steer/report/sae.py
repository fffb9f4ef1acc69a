"""The SAE: verdict, quality figures, training curves, the frontier of a grid."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from saelens_steer.report import lines
from saelens_steer.report.figures import base, legend_on_top, panels
from saelens_steer.report.markup import TableCell, details, esc, figure, note, section, table
from saelens_steer.report.method import QUALITY, QUALITY_FIRST
from saelens_steer.report.run_folder import RunTables
from saelens_steer.report.theme import (
    MUTED,
    NULL,
    SHADES,
    decimals,
    name_label,
    number,
    plain,
    short,
)

CURVES = ("loss", "l0", "explained_variance")
CURVE_LABELS = {
    "loss": "Loss",
    "l0": "L0 (active features)",
    "explained_variance": "Explained variance",
}
FRONTIER = {"explained_variance": "Explained variance", "loss_recovered": "Loss recovered"}
COLOURS = tuple(shade for shades in zip(*SHADES, strict=True) for shade in shades)
RARE = 1e-4


def training_figure(metrics: pd.DataFrame, columns: Sequence[str] | None = None) -> go.Figure:
    """The SAE's training: loss, L0 and explained variance (those there are) against tokens.

    Solid: the batches trained on; dotted: activations held out, where they were measured.
    """
    columns = [c for c in columns or CURVES if c in metrics.columns]
    figure = panels([CURVE_LABELS.get(c, name_label(c)) for c in columns], "SAE training")
    for i, name in enumerate(columns):
        for trace in _curves(metrics, name):
            figure.add_trace(trace, row=i // 3 + 1, col=i % 3 + 1)
    figure.update_xaxes(title_text="Training tokens", tickformat="~s", nticks=5)
    if len(figure.data) > len(columns) > 1:  # in a panel alone, the page says what is dotted
        for trace, name in zip(figure.data, ("trained on", "held out"), strict=False):
            trace.update(showlegend=True, name=name)
        figure.update_layout(legend=legend_on_top() | {"x": 1, "xanchor": "right", "y": 1.12})
    return figure


def _curves(metrics: pd.DataFrame, name: str) -> list[go.Scatter]:
    kinds = [(name, name_label(name), {"color": lines.side_colour(0), "width": 2})]
    if f"held_out_{name}" in metrics.columns:
        dotted = {"color": lines.side_colour(1), "width": 2, "dash": "dot"}
        kinds.append((f"held_out_{name}", f"{name_label(name)}, held out", dotted))
    found = []
    for column, label, line in kinds:
        own = metrics.dropna(subset=[column])
        found.append(
            go.Scatter(
                x=list(own["tokens"] if "tokens" in own.columns else own.index),
                y=list(own[column]),
                mode="lines",
                line=line,
                name=plain(label),
                showlegend=False,
                hovertemplate=plain(label) + "<br>%{x:,} tokens<br>%{y:.4g}<extra></extra>",
            )
        )
    return found


def density_figure(quality: Mapping[str, Any]) -> go.Figure:
    """How often features fire: how many, by the share of tokens, on a scale of powers of ten."""
    edges, counts = quality["density"]["log10_edges"], quality["density"]["counts"]
    middles = [(low + high) / 2 for low, high in itertools.pairwise(edges)]
    shares = [f"{_share(10.0**a)} to {_share(10.0**b)}" for a, b in itertools.pairwise(edges)]
    figure = base(go.Figure(), "How often features fire", 300)
    bars = go.Bar(
        x=middles,
        y=counts,
        width=[edges[1] - edges[0]] * len(counts),
        marker={"color": lines.side_colour(0), "line": {"color": "white", "width": 1}},
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
    return f"{percent:.3g} %" if percent >= RARE else f"{percent:.0e} %"


def frontier_figure(grid: pd.DataFrame) -> go.Figure:
    """Where the SAEs of a grid stand: explained variance and loss recovered against L0.

    grid: grid.csv. One colour for each architecture, its SAEs joined in the order of L0; up and to
    the left is better. Pointing at one says what it is.
    """
    figure = panels(list(FRONTIER.values()), "Sparse or faithful: the grid of SAEs")
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
    figure.update_xaxes(title_text="L0 (active features a token)", rangemode="tozero")
    figure.update_yaxes(tickfont_color=MUTED, zerolinecolor=NULL)
    top = legend_on_top() | {"y": 1.14}
    return figure.update_layout(legend=top, margin_t=104, height=430)


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


HELD_OUT = (
    "Solid: what it was trained on. Dotted: activations held out. The loss in training may hold a "
    "term that revives dead features, which the other has not."
)


def sae_section(run: RunTables) -> str:
    """How good the SAE is, how often its features fire, how its training and its grid went."""
    parts = [_verdict(run.quality), _quality(run.quality), _density(run.quality)]
    parts += [_training(run), _frontier(run)]
    lead = (
        "Steering with a feature means no more than the SAE it comes from: here is how well that "
        "SAE rebuilds the model's activations."
    )
    return section("sae", "The SAE", lead, *parts)


def _verdict(quality: Mapping[str, Any]) -> str:
    if not quality.get("verdict"):
        return ""
    items = "".join(f"<li>{esc(text)}</li>" for text in quality.get("warnings") or [])
    more = f"<ul>{items}</ul>" if items else ""
    return f'<p class="verdict"><b>{esc(quality["verdict"])}</b></p>{more}'


def _quality(quality: Mapping[str, Any]) -> str:
    numbers = {k: v for k, v in quality.items() if isinstance(v, int | float)}
    if not numbers:
        return note("Its quality was not measured in this run.")
    first = [k for k in QUALITY_FIRST if k in numbers]
    known = sorted(numbers, key=lambda k: list(QUALITY).index(k) if k in QUALITY else 99)
    rest = [k for k in known if k not in first]
    more = details(f"All {len(numbers)} figures", _figures(numbers, rest)) if rest else ""
    return _figures(numbers, first) + more


def _figures(numbers: Mapping[str, int | float], names: Sequence[str]) -> str:
    known = {name: QUALITY.get(name, (name_label(name), "")) for name in names}
    rows = [
        [
            TableCell(f"<b>{esc(known[name][0])}</b>"),
            TableCell(esc(_measured(numbers[name])), float(numbers[name])),
            TableCell(esc(known[name][1])),
        ]
        for name in names
    ]
    return table("Quality of the SAE", ["Measure", "Value", "What it says"], rows, sort=False)


def _measured(value: int | float) -> str:
    """About three digits, and counts in full."""
    return short(value) if float(value).is_integer() else number(value, decimals([value]))


def _density(quality: Mapping[str, Any]) -> str:
    if not sum((quality.get("density") or {}).get("counts", [])):
        return ""
    caption = (
        "On the tokens that the figures above were measured on; dead features are left out. Those "
        "on the left are rare, those far to the right fire too often to stand for one thing."
    )
    return figure("density", density_figure(quality), caption)


def _training(run: RunTables) -> str:
    if run.training.empty:
        return note("The SAE was loaded, not trained in this run: there is no training curve.")
    columns = [c for c in CURVES if c in run.training.columns]
    held_out = any(f"held_out_{c}" in run.training.columns for c in columns)
    grid = "".join(_curve(run, column) for column in columns)
    legend = note(HELD_OUT) if held_out else ""
    return f'<div class="grid">{grid}</div>{legend}'


def _curve(run: RunTables, column: str) -> str:
    plot = training_figure(run.training, [column])
    plot.layout.annotations = ()
    plot.update_layout(height=236, margin={"l": 48, "r": 14, "b": 48})
    title = CURVE_LABELS[column]
    drawn = figure(f"training-{column}", plot, alt=f"{title} against training tokens")
    return f"<div><h3>{esc(title)}</h3>{drawn}</div>"


def _frontier(run: RunTables) -> str:
    if run.grid.empty:
        return ""
    caption = (
        f"{len(run.grid)} SAEs trained on the same activations. Up and to the left is better: more "
        "of the model is left with fewer features active."
    )
    return f"<h3>The grid</h3>{figure('frontier', frontier_figure(run.grid), caption)}"
