"""Figures of a run: pure functions from tables to plotly figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from saelens_steer.report import lines
from saelens_steer.report.run_folder import (
    candidates,
    check_metrics,
    claims_on,
    column,
    compared,
    control_counts,
    direction_sides,
    having,
    is_text_metric,
    largest_effect,
    metric_names,
    side_names,
)
from saelens_steer.report.theme import (
    BAND_INNER,
    BAND_LINE,
    BAND_OUTER,
    INK,
    TEMPLATE,
    alpha_label,
    axis_label,
    decimals,
    direction_label,
    metric_unit,
    name_label,
    number,
    plain,
)


def interference_figure(
    summary: pd.DataFrame,
    metric: str,
    *,
    claims: pd.DataFrame | None = None,
    sides: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
) -> go.Figure:
    """Dose-response: Δ metric against α, candidates as lines, controls as a band.

    With claims, candidates that are no more than random are grey and the strongest others carry
    error bars (95 % bootstrap); sides colours them by the side they are a candidate of;
    labels (direction → text) are shown on hover.
    """
    check_metrics(summary, [metric])
    figure = _figure(f"Change in {name_label(metric)} against steering strength", 460)
    for trace in control_band(compared(summary, claims), metric):
        figure.add_trace(trace)
    for trace, label in lines.candidate_lines(candidates(summary), metric, claims, sides, labels):
        figure.add_trace(trace)
        if label:
            figure.add_annotation(label)
    lines.spread(figure)
    _alpha_axis(figure, summary)
    figure.update_yaxes(title_text=axis_label(f"Δ {name_label(metric)}", metric_unit(metric)))
    figure.add_hline(y=0, line={"color": BAND_LINE, "width": 1}, layer="below")
    return figure.update_layout(hovermode="closest", legend=legend_on_top(), margin_r=104)


def control_band(table: pd.DataFrame, metric: str) -> list[go.Scatter]:
    """The controls' Δ at each α: smallest to largest, 5–95 %, and the median."""
    deltas = having(table, f"{metric}_delta")
    if deltas.empty:
        return []
    groups = column(deltas, f"{metric}_delta").groupby(deltas["alpha"])
    q = {share: pd.Series(groups.quantile(share)) for share in (0.0, 0.05, 0.5, 0.95, 1.0)}
    families, sets, kind = control_counts(deltas)
    who = " + ".join(f"{n} {family}" for family, n in families.items()) + " controls"
    who += f" of {sets} {kind}" if sets > 1 else ""
    return [
        _area(q[0.0], q[1.0], BAND_OUTER, f"{who}, all"),
        _area(q[0.05], q[0.95], BAND_INNER, f"{who}, 5–95 %"),
        go.Scatter(
            x=list(q[0.5].index),
            y=list(q[0.5]),
            mode="lines",
            line={"color": BAND_LINE, "width": 1.5, "dash": "dot"},
            name="controls, median",
            hovertemplate="controls, median<br>α = %{x}<br>Δ %{y:.4g}<extra></extra>",
        ),
    ]


def _area(low: pd.Series, high: pd.Series, colour: str, name: str) -> go.Scatter:
    """A filled band between two curves over the same strengths, as one closed outline."""
    return go.Scatter(
        x=[*low.index, *high.index[::-1]],
        y=[*low, *high[::-1]],
        fill="toself",
        fillcolor=colour,
        mode="lines",
        line={"width": 0, "color": colour},
        name=plain(name),
        hoverinfo="skip",
    )


def validity_figure(
    summary: pd.DataFrame,
    columns: Sequence[str],
    *,
    sides: Mapping[str, str] | None = None,
) -> go.Figure:
    """Rates of completions against α: one panel for each column, one line for each direction."""
    check_metrics(summary, columns)
    figure = panels([name_label(c) for c in columns], "Completions against steering strength")
    for i, name in enumerate(columns):
        row, col = divmod(i, 3)
        for trace in lines.rate_lines(summary, name, sides):
            trace.showlegend = i == 0
            figure.add_trace(trace, row=row + 1, col=col + 1)
        if lines.is_rate(column(summary, name)):
            figure.update_yaxes(range=[-0.04, 1.04], tickformat=".0%", row=row + 1, col=col + 1)
    _alpha_axis(figure, summary)
    figure.update_xaxes(title_text="α")
    below = {"y": -0.24 / max(1, -(-len(columns) // 3)), "yanchor": "top"}
    return figure.update_layout(legend=legend_on_top() | below, margin={"t": 84, "b": 96})


def claims_figure(
    claims: pd.DataFrame,
    summary: pd.DataFrame,
    metric: str | None = None,
    *,
    sides: Mapping[str, str] | None = None,
) -> go.Figure:
    """Each candidate's T (largest |Δ| over the strengths) under the controls' distribution of T.

    metric: by default the first one measured for most directions.
    """
    metric = metric or _first_metric(summary)
    check_metrics(summary, [metric])
    claims = claims_on(claims, metric).iloc[::-1]
    figure = make_subplots(
        rows=2, cols=1, shared_xaxes=True, row_heights=[0.26, 0.74], vertical_spacing=0.03
    )
    of_controls = largest_effect(compared(summary, claims), metric)
    histogram = go.Histogram(
        x=list(of_controls),
        nbinsx=max(12, min(48, len(of_controls) // 4)),
        marker={"color": "#B4BCC6", "line": {"color": "white", "width": 0.5}},
        name=f"{len(of_controls)} controls",
        hovertemplate="T %{x}<br>%{y} controls<extra></extra>",
    )
    figure.add_trace(histogram, row=1, col=1)
    for trace in lines.claim_dots(claims, sides):
        figure.add_trace(trace, row=2, col=1)
    base(figure, f"{name_label(metric)}: candidates against controls", 270 + 19 * len(claims))
    figure.update_layout(legend=legend_on_top(), bargap=0)
    _quantile_line(figure, claims, of_controls)
    figure.update_xaxes(rangemode="tozero")
    figure.update_xaxes(
        title_text=axis_label("T, largest |Δ| over the strengths", metric_unit(metric)), row=2
    )
    figure.update_yaxes(title_text="Controls", nticks=4, row=1)
    order = [direction_label(d) for d in claims["direction"]]
    return figure.update_yaxes(categoryorder="array", categoryarray=order, dtick=1, row=2)


def scores_figure(features: Mapping[str, Any]) -> go.Figure:
    """The score by which each candidate was selected, by side, strongest first."""
    score, scores = str(features.get("score", "score")), features.get("scores", {})
    sides = direction_sides(dict(features))
    figure = _figure(f"Selection score: {name_label(score)}", 130 + 22 * len(sides))
    for i, side in enumerate(side_names(dict(features))):
        own = [f for f in features.get(f"{side}_candidates", []) if score in scores.get(str(f), {})]
        figure.add_trace(
            go.Bar(
                y=[f"feature {f}" for f in own],
                x=[scores[str(f)][score] for f in own],
                orientation="h",
                marker={"color": lines.side_colour(i)},
                name=plain(f"{side} candidates"),
                hovertemplate="%{y}<br>" + plain(name_label(score)) + " %{x:.4g}<extra></extra>",
            )
        )
    figure.update_xaxes(
        title_text=axis_label(name_label(score), ""), zeroline=True, zerolinecolor=BAND_LINE
    )
    figure.update_yaxes(autorange="reversed", dtick=1, ticks="", showgrid=False)
    return figure.update_layout(barmode="overlay", bargap=0.45, legend=legend_on_top())


def _first_metric(summary: pd.DataFrame) -> str:
    names = metric_names(summary)
    return next((m for m in names if not is_text_metric(summary, m)), "".join(names[:1]))


def _quantile_line(figure: go.Figure, claims: pd.DataFrame, of_controls: pd.Series) -> None:
    """Where 95 % of the controls end: one line, or a tick for each candidate where they differ."""
    given = column(claims, "control_quantile").dropna()
    if given.empty and of_controls.empty:
        return
    if len(given) and given.max() > given.min() * (1 + 1e-9):
        figure.add_trace(lines.quantile_ticks(having(claims, "control_quantile")), row=2, col=1)
        return
    at = float(given.iloc[0] if len(given) else of_controls.quantile(0.95))
    line = {"color": INK, "width": 1.25, "dash": "dot"}
    whole = {"y0": 0, "y1": 1, "xref": "x", "yref": "paper"}
    figure.add_shape(type="line", x0=at, x1=at, line=line, **whole)
    inside = {"fillcolor": BAND_OUTER, "line_width": 0, "layer": "below"}
    figure.add_shape(type="rect", x0=0, x1=at, **inside, **whole)
    text = f"95 % of controls below {number(at, decimals([at]))}"
    figure.add_annotation(
        x=at,
        y=1,
        xref="x",
        yref="paper",
        text=text,
        showarrow=False,
        xanchor="left",
        xshift=6,
        yanchor="top",
    )


def _figure(title: str, height: int) -> go.Figure:
    return base(go.Figure(), title, height)


def base(figure: go.Figure, title: str, height: int) -> go.Figure:
    """The figure with the house's template, a title and a height in pixels."""
    return figure.update_layout(template=TEMPLATE, title_text=plain(title), height=height)


def panels(titles: Sequence[str], title: str) -> go.Figure:
    """Small panels, up to three in a row."""
    rows = max(1, -(-len(titles) // 3))
    figure = make_subplots(
        rows=rows,
        cols=max(1, min(3, len(titles))),
        subplot_titles=[plain(t) for t in titles],
        horizontal_spacing=0.09,
        vertical_spacing=0.34 / rows,
    )
    figure.update_annotations(font={"size": 13.5, "color": INK})
    return base(figure, title, 140 + 250 * rows).update_layout(margin_t=84)


def _alpha_axis(figure: go.Figure, summary: pd.DataFrame) -> None:
    """Ticks at the strengths that were measured (thinned where they are many)."""
    alphas = sorted(set(summary["alpha"]))
    unit = str(summary["alpha_unit"].iloc[0]) if "alpha_unit" in summary and len(summary) else ""
    ticks = {"tickvals": alphas, "ticktext": [number(a, 0 if a == int(a) else 2) for a in alphas]}
    pad = 0.03 * (alphas[-1] - alphas[0]) if alphas else 0
    figure.update_xaxes(range=[alphas[0] - pad, alphas[-1] + pad] if pad else None)
    figure.update_xaxes(title_text=plain(alpha_label(unit)), **(ticks if len(alphas) <= 11 else {}))


def legend_on_top() -> dict[str, Any]:
    """A legend in a row above the plot."""
    return {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "xanchor": "left"}
