"""Figures of a run: pure functions from tables to plotly figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from saelens_steer.errors import InputError
from saelens_steer.report import lines
from saelens_steer.report.run_folder import (
    candidates,
    claims_on,
    compared,
    control_counts,
    direction_sides,
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

    With `claims`, candidates that are no more than random are grey, and the strongest others have
    error bars (95 % bootstrap). `sides` colours candidates by side; `labels` (direction → text)
    are shown on hover.
    """
    _check_metrics(summary, [metric])
    title = f"Change in {name_label(metric)} against steering strength"
    figure = base(go.Figure(_control_band(compared(summary, claims), metric)), title, 460)
    for trace, label in lines.candidate_lines(candidates(summary), metric, claims, sides, labels):
        figure.add_trace(trace)
        if label:
            figure.add_annotation(label)
    lines.spread(figure)
    _alpha_axis(figure, summary)
    figure.update_yaxes(title_text=axis_label(f"Δ {name_label(metric)}", metric_unit(metric)))
    figure.add_hline(y=0, line={"color": BAND_LINE, "width": 1}, layer="below")
    return figure.update_layout(hovermode="closest", legend=legend_on_top(), margin_r=104)


def validity_figure(
    summary: pd.DataFrame,
    columns: Sequence[str],
    *,
    sides: Mapping[str, str] | None = None,
) -> go.Figure:
    """Metrics of completions against α: one panel per column, one line per direction."""
    _check_metrics(summary, columns)
    figure = panels([name_label(c) for c in columns], "Completions against steering strength")
    for i, name in enumerate(columns):
        place: dict[str, Any] = {"row": i // 3 + 1, "col": i % 3 + 1}
        for trace in lines.rate_lines(summary, name, sides):
            figure.add_trace(trace.update(showlegend=i == 0), **place)
        if summary[name].dropna().between(0, 1).all():
            figure.update_yaxes(range=[-0.04, 1.04], tickformat=".0%", **place)
    _alpha_axis(figure, summary)
    figure.update_xaxes(title_text="α")
    below = {"y": -0.24 / max(1, -(-len(columns) // 3)), "yanchor": "top"}
    return figure.update_layout(legend=legend_on_top() | below, margin={"t": 84, "b": 96})


def claims_figure(
    claims: pd.DataFrame,
    summary: pd.DataFrame,
    metric: str,
    *,
    sides: Mapping[str, str] | None = None,
) -> go.Figure:
    """Each candidate's T (largest |Δ| over the strengths) under the controls' distribution of T."""
    _check_metrics(summary, [metric])
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
    label = axis_label("T, largest |Δ| over the strengths", metric_unit(metric))
    figure.update_xaxes(title_text=label, row=2)
    figure.update_yaxes(title_text="Controls", nticks=4, row=1)
    order = [direction_label(d) for d in claims["direction"]]
    return figure.update_yaxes(categoryorder="array", categoryarray=order, dtick=1, row=2)


def scores_figure(features: Mapping[str, Any]) -> go.Figure:
    """The selection score of each candidate, by side, strongest first."""
    score, scores = str(features.get("score", "score")), features.get("scores", {})
    label, n_candidates = name_label(score), len(direction_sides(dict(features)))
    figure = base(go.Figure(), f"Selection score: {label}", 130 + 22 * n_candidates)
    for i, side in enumerate(side_names(dict(features))):
        own = [f for f in features.get(f"{side}_candidates", []) if score in scores.get(str(f), {})]
        bars = go.Bar(
            y=[f"feature {f}" for f in own],
            x=[scores[str(f)][score] for f in own],
            orientation="h",
            marker={"color": lines.side_colour(i)},
            name=plain(f"{side} candidates"),
            hovertemplate="%{y}<br>" + plain(label) + " %{x:.4g}<extra></extra>",
        )
        figure.add_trace(bars)
    title = axis_label(label, "")
    figure.update_xaxes(title_text=title, zeroline=True, zerolinecolor=BAND_LINE)
    figure.update_yaxes(autorange="reversed", dtick=1, ticks="", showgrid=False)
    return figure.update_layout(barmode="overlay", bargap=0.45, legend=legend_on_top())


def base(figure: go.Figure, title: str, height: int) -> go.Figure:
    """The figure with the shared template, a title and a height in pixels."""
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


def legend_on_top() -> dict[str, Any]:
    """A legend in a row above the plot."""
    return {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "xanchor": "left"}


def _check_metrics(summary: pd.DataFrame, metrics: Sequence[str]) -> None:
    known = metric_names(summary)
    for metric in metrics:
        if metric not in known:
            raise InputError(f"no metric {metric!r} here; available: {', '.join(known) or 'none'}")


def _control_band(table: pd.DataFrame, metric: str) -> list[go.Scatter]:
    """The controls' Δ at each α: smallest to largest, 5–95 %, and the median."""
    deltas = table.dropna(subset=[f"{metric}_delta"])
    if deltas.empty:
        return []
    groups = deltas.groupby("alpha")[f"{metric}_delta"]
    q: dict[float, Any] = {share: groups.quantile(share) for share in (0.0, 0.05, 0.5, 0.95, 1.0)}
    families, sets, kind = control_counts(deltas)
    who = " + ".join(f"{n} {family}" for family, n in families.items()) + " controls"
    who += f" of {sets} {kind}" if sets > 1 else ""
    areas = [
        go.Scatter(  # the curve below and back along the curve above: one closed outline
            x=[*low.index, *high.index[::-1]],
            y=[*low, *high[::-1]],
            fill="toself",
            fillcolor=colour,
            mode="lines",
            line={"width": 0, "color": colour},
            name=plain(f"{who}, {share}"),
            hoverinfo="skip",
        )
        for low, high, colour, share in (
            (q[0.0], q[1.0], BAND_OUTER, "all"),
            (q[0.05], q[0.95], BAND_INNER, "5–95 %"),
        )
    ]
    median = go.Scatter(
        x=list(q[0.5].index),
        y=list(q[0.5]),
        mode="lines",
        line={"color": BAND_LINE, "width": 1.5, "dash": "dot"},
        name="controls, median",
        hovertemplate="controls, median<br>α = %{x}<br>Δ %{y:.4g}<extra></extra>",
    )
    return [*areas, median]


def _alpha_axis(figure: go.Figure, summary: pd.DataFrame) -> None:
    """Ticks at the strengths that were measured, unless there are too many to label."""
    alphas = sorted(set(summary["alpha"]))
    unit = str(summary["alpha_unit"].iloc[0]) if "alpha_unit" in summary and len(summary) else ""
    ticks = {"tickvals": alphas, "ticktext": [number(a, 0 if a == int(a) else 2) for a in alphas]}
    pad = 0.03 * (alphas[-1] - alphas[0]) if alphas else 0
    figure.update_xaxes(range=[alphas[0] - pad, alphas[-1] + pad] if pad else None)
    figure.update_xaxes(title_text=plain(alpha_label(unit)), **(ticks if len(alphas) <= 11 else {}))


def _quantile_line(figure: go.Figure, claims: pd.DataFrame, of_controls: pd.Series) -> None:
    """Mark the controls' 95th percentile: one line, or a tick per candidate if they differ."""
    given = claims.dropna(subset=["control_quantile"])
    ends = given.loc[:, "control_quantile"]
    if given.empty and of_controls.empty:
        return
    if len(given) and ends.max() > ends.min() * (1 + 1e-9):
        ticks = go.Scatter(
            x=list(ends),
            y=[direction_label(d) for d in given["direction"]],
            mode="markers",
            marker={"symbol": "line-ns", "size": 13, "line": {"color": INK, "width": 1.5}},
            name="95 % of its controls",
            hovertemplate="95 % of the controls below %{x:.4g}<extra></extra>",
        )
        figure.add_trace(ticks, row=2, col=1)
        return
    at = float(ends.iloc[0] if len(given) else of_controls.quantile(0.95))
    line = {"color": INK, "width": 1.25, "dash": "dot"}
    whole = {"y0": 0, "y1": 1, "xref": "x", "yref": "paper"}
    figure.add_shape(type="line", x0=at, x1=at, line=line, **whole)
    inside = {"fillcolor": BAND_OUTER, "line_width": 0, "layer": "below"}
    figure.add_shape(type="rect", x0=0, x1=at, **inside, **whole)
    figure.add_annotation(
        x=at,
        y=1,
        xref="x",
        yref="paper",
        text=f"95 % of controls below {number(at, decimals([at]))}",
        showarrow=False,
        xanchor="left",
        xshift=6,
        yanchor="top",
    )
