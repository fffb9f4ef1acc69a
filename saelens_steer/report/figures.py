"""Figures of a run: pure functions from tables to plotly figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from saelens_steer.errors import InputError
from saelens_steer.numbers import count, decimals, number
from saelens_steer.report import lines, run_folder, theme
from saelens_steer.report.run_folder import claims_on, compared, largest_effect
from saelens_steer.report.theme import (
    BAND_INNER,
    BAND_LINE,
    BAND_OUTER,
    INK,
    axis_label,
    name_label,
    plain,
)
from saelens_steer.steering import direction_label


def interference_figure(
    summary: pd.DataFrame,
    metric: str,
    *,
    claims: pd.DataFrame | None = None,
    sides: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
    unit: str = "",
) -> go.Figure:
    """Dose-response: Δ metric against α, candidates as lines, controls as a band.

    With `claims`, candidates that are no more than random are grey, and the strongest others have
    error bars (95 % bootstrap). `sides` colours candidates by side; `labels` (direction → text)
    are shown on hover.
    """
    _check_metrics(summary, [metric])
    claims = pd.DataFrame() if claims is None else claims
    label, candidates = name_label(metric), run_folder.candidates(summary)
    figure = go.Figure(_control_band(compared(summary, claims), metric))
    on_metric = claims_on(claims, metric)
    lines.add_candidates(figure, candidates, metric, on_metric, sides or {}, labels or {})
    _alpha_axis(figure, summary)
    figure.update_yaxes(title_text=axis_label(f"Δ {label}", unit))
    figure.add_hline(y=0, line={"color": BAND_LINE, "width": 1}, layer="below")
    figure.update_layout(margin_r=104)
    return theme.base(figure, f"Change in {label} against steering strength", 460)


def validity_figure(
    summary: pd.DataFrame, columns: Sequence[str], sides: Mapping[str, str]
) -> go.Figure:
    """Metrics of completions against α: one panel per column, one line per direction."""
    _check_metrics(summary, columns)
    title = "Completions against steering strength"
    figure = theme.panels([name_label(c) for c in columns], title)
    for i, name in enumerate(columns):
        place: dict[str, Any] = {"row": i // 3 + 1, "col": i % 3 + 1}
        for trace in lines.rate_lines(summary, name, sides):
            shown = i == 0 and trace.showlegend is not False
            figure.add_trace(trace.update(showlegend=shown), **place)
        if summary[name].dropna().between(0, 1).all():
            figure.update_yaxes(range=[-0.04, 1.04], tickformat=".0%", **place)
    _alpha_axis(figure, summary)
    figure.update_xaxes(title_text="α")
    below = {"y": -0.24 / max(1, -(-len(columns) // 3)), "yanchor": "top"}
    return figure.update_layout(legend=below, margin={"t": 84, "b": 96})


def claims_figure(
    claims: pd.DataFrame,
    summary: pd.DataFrame,
    metric: str,
    sides: Mapping[str, str],
    unit: str = "",
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
        name=count(len(of_controls), "control"),
        hovertemplate="T %{x}<br>%{y} controls<extra></extra>",
    )
    figure.add_trace(histogram, row=1, col=1)
    for trace in lines.claim_dots(claims, sides):
        figure.add_trace(trace, row=2, col=1)
    _quantile_line(figure, claims, of_controls)
    figure.update_xaxes(rangemode="tozero")
    label = axis_label("T, largest |Δ| over the strengths", unit)
    figure.update_xaxes(title_text=label, row=2)
    figure.update_yaxes(title_text="Controls", nticks=4, row=1)
    order = [direction_label(d) for d in claims["direction"]]
    figure.update_yaxes(categoryorder="array", categoryarray=order, dtick=1, row=2)
    title = f"{name_label(metric)}: candidates against controls"
    return theme.base(figure, title, 270 + 19 * len(claims)).update_layout(bargap=0)


def scores_figure(features: Mapping[str, Any]) -> go.Figure:
    """The selection score of each candidate, by side, strongest first."""
    score, scores = str(features.get("score", "score")), features["scores"]
    label, figure = plain(name_label(score)), go.Figure()
    for i, side in enumerate(run_folder.side_names(features)):
        column = f"negative_{score}" if i and features.get("reference") else score
        own = [
            f for f in features.get(f"{side}_candidates", []) if column in scores.get(str(f), {})
        ]
        figure.add_bar(
            y=[f"feature {f}" for f in own],
            x=[scores[str(f)][column] for f in own],
            orientation="h",
            marker={"color": theme.SIDE_COLOURS[i]},
            name=plain(f"{side} candidates"),
            hovertemplate="%{y}<br>" + label + " %{x:.4g}<extra></extra>",
        )
    figure.update_xaxes(title_text=label, zeroline=True, zerolinecolor=BAND_LINE)
    figure.update_yaxes(autorange="reversed", dtick=1, ticks="", showgrid=False)
    figure.update_layout(barmode="overlay", bargap=0.45)
    n_candidates = len(run_folder.direction_sides(features))
    title = f"Selection score: {name_label(score)}"
    return theme.base(figure, title, 130 + 22 * n_candidates)


def _check_metrics(summary: pd.DataFrame, metrics: Sequence[str]) -> None:
    known = run_folder.metric_names(summary)
    for metric in metrics:
        if metric not in known:
            raise InputError(f"no metric {metric!r} here; available: {', '.join(known) or 'none'}")


def _control_band(table: pd.DataFrame, metric: str) -> list[go.Scatter]:
    """The controls' Δ at each α: smallest to largest, 5–95 %, and the median."""
    deltas = table.dropna(subset=[f"{metric}_delta"])
    if deltas.empty:
        return []
    groups = deltas.groupby("alpha")[f"{metric}_delta"]
    families, sets, kind = run_folder.control_counts(deltas)
    who = " + ".join(f"{n} {family}" for family, n in families.items()) + " controls"
    who += f" of {sets} {kind}" if sets > 1 else ""
    areas = []
    for ends, colour, share in (((0, 1), BAND_OUTER, "all"), ((0.05, 0.95), BAND_INNER, "5–95 %")):
        low, high = map(groups.quantile, ends)
        area = go.Scatter(  # the curve below and back along the curve above: one closed outline
            x=[*low.index, *high.index[::-1]],
            y=[*low, *high[::-1]],
            fill="toself",
            fillcolor=colour,
            mode="lines",
            line={"width": 0, "color": colour},
            name=plain(f"{who}, {share}"),
            hoverinfo="skip",
        )
        areas.append(area)
    middle = groups.quantile(0.5)
    median = go.Scatter(
        x=list(middle.index),
        y=list(middle),
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
    if pad := 0.03 * (alphas[-1] - alphas[0]) if alphas else 0:
        figure.update_xaxes(range=[alphas[0] - pad, alphas[-1] + pad])
    if len(alphas) <= 11:
        texts = [number(a, 0 if a == int(a) else 2) for a in alphas]
        figure.update_xaxes(tickvals=alphas, ticktext=texts)
    figure.update_xaxes(title_text=plain(theme.alpha_label(unit)))


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
            name="95th percentile of its controls",
            hovertemplate="95 % of its controls are below %{x:.4g}<extra></extra>",
        )
        figure.add_trace(ticks, row=2, col=1)
        return
    at = float(ends.iloc[0] if len(given) else of_controls.quantile(0.95))
    line = {"color": INK, "width": 1.25, "dash": "dot"}
    paper = {"xref": "x", "yref": "paper"}
    figure.add_shape(type="line", x0=at, x1=at, y0=0, y1=1, line=line, **paper)
    below = {"fillcolor": BAND_OUTER, "line_width": 0, "layer": "below"}
    figure.add_shape(type="rect", x0=0, x1=at, y0=0, y1=1, **below, **paper)
    text = f"95 % of controls below {number(at, decimals([at]))}"
    beside = {"showarrow": False, "xanchor": "left", "xshift": 6, "yanchor": "top"}
    figure.add_annotation(x=at, y=1, text=text, **beside, **paper)
