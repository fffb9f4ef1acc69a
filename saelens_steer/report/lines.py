"""Traces of single directions: colours, lines, end labels and dots."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from saelens_steer.evidence import FAILS
from saelens_steer.report import run_folder
from saelens_steer.report.theme import NULL, SHADES, SIDE_COLOURS, plain, quoted
from saelens_steer.steering import direction_label

NAMED_CONTROLS = 4
"""Random directions that are named one by one beside their completions."""
LABELLED = 2
"""Directions per side that carry error bars and a label at the end of their line."""
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross")
Sides = Mapping[str, str]
"""Direction → its side; empty if the run has no sides."""


@dataclass(frozen=True)
class Style:
    """The style of one candidate."""

    group: str
    """The legend entry it belongs to."""
    colour: str
    strong: bool
    """Drawn thick, with error bars and a label."""
    legend_rank: int
    """Sides in order, then candidates that are no more than random; controls have 1000."""


def side_index(direction: str, sides: Sides) -> int:
    """0 for the positive side, 1 for the negative, 2 for neither; 0 if no sides are known."""
    order = list(dict.fromkeys(sides.values()))[:2]
    side = sides.get(direction)
    return order.index(side) if side in order else 2 * bool(order)


def styles(sizes: pd.Series, claims: pd.DataFrame, sides: Sides) -> dict[str, Style]:
    """A style for each candidate in `sizes` (direction → T), strongest first.

    claims: of one metric; a direction that is not in them has no verdict.
    """
    verdicts = dict(claims[["direction", "verdict"]].to_numpy()) if len(claims) else {}
    found: dict[str, Style] = {}
    drawn: Counter[int] = Counter()
    for direction in map(str, sizes.sort_values(ascending=False).index):
        verdict = verdicts.get(direction, "")
        if verdict == FAILS:
            found[direction] = Style(verdict, NULL, strong=False, legend_rank=900)
            continue
        index = side_index(direction, sides)
        drawn[index] += 1
        side = sides.get(direction, "other" if sides else "")
        group = ", ".join(filter(None, [f"{side} candidates".strip(), verdict]))
        strong = drawn[index] <= LABELLED
        found[direction] = Style(group, SIDE_COLOURS[index], strong, legend_rank=100 + index)
    return found


def add_candidates(
    figure: go.Figure,
    table: pd.DataFrame,
    metric: str,
    claims: pd.DataFrame,
    sides: Sides,
    labels: Mapping[str, str],
) -> None:
    """Draw a line for each candidate, grey ones first, with an end label for the strongest."""
    style = styles(run_folder.largest_effect(table, metric), claims, sides)
    counts = Counter(own.group for own in style.values())
    named: set[str] = set()
    measured = table.dropna(subset=[f"{metric}_delta"]).sort_values(by="alpha")
    by_layer = sorted(style.items(), key=lambda item: 2 * item[1].strong + (item[1].colour != NULL))
    for direction, own in by_layer:
        points = measured.loc[measured["direction"] == direction]
        trace = _line(points, metric, own, quoted(labels.get(direction, "")))
        trace.update(name=plain(f"{own.group} ({counts[own.group]})"), legendgroup=own.group)
        trace.update(showlegend=own.group not in named, legendrank=own.legend_rank)
        named.add(own.group)
        figure.add_trace(trace)
        if own.strong:
            figure.add_annotation(
                name="end-label",
                text=plain(direction_label(direction)),
                font={"color": own.colour, "size": 12},
                showarrow=False,
                y=float(points[f"{metric}_delta"].iloc[-1]),
                **{"x": 1, "xref": "paper", "xanchor": "left", "xshift": 6},
            )
    _spread(figure)


def _line(points: pd.DataFrame, metric: str, style: Style, said: str) -> go.Scatter:
    delta, low, high = (points.loc[:, f"{metric}_{e}"] for e in ("delta", "ci_low", "ci_high"))
    label = plain(direction_label(str(points["direction"].iloc[0])))
    beside = [[plain(said)] * len(points)] if said else []
    error_bars = {
        "array": list((high - delta).clip(lower=0)),
        "arrayminus": list((delta - low).clip(lower=0)),
        "symmetric": False,
        "type": "data",
        "color": style.colour,
        "thickness": 1.25,
        "width": 4,
    }
    return go.Scatter(
        x=list(points["alpha"]),
        y=list(delta),
        customdata=list(zip(low, high, *beside, strict=True)),
        mode="lines+markers",
        line={"color": style.colour, "width": 2.5 if style.strong else 1.25},
        marker={"size": 6 if style.strong else 4, "color": style.colour},
        opacity=1.0 if style.strong else 0.7,
        error_y=error_bars if style.strong else None,
        hovertemplate=f"<b>{label}</b>{'<br>%{customdata[2]}' if said else ''}"
        "<br>α = %{x}<br>Δ %{y:.4g} "
        f"[%{{customdata[0]:.4g}}, %{{customdata[1]:.4g}}]<br>{plain(style.group)}<extra></extra>",
    )


def _spread(figure: Any) -> None:
    """Move the labels at the ends of lines apart, by at least a share of the figure's height."""
    values = [v for trace in figure.data for v in trace.y]
    step = 0.055 * (max(values) - min(values)) if values else 0
    for below, label in pairwise(sorted(figure.layout.annotations, key=lambda a: a.y)):
        label.y = max(label.y, below.y + step)


def rate_lines(summary: pd.DataFrame, metric: str, sides: Sides) -> Iterator[go.Scatter]:
    """A line for each direction with completions: candidates in colour, controls grey."""
    own = run_folder.with_texts(summary, [metric]).sort_values(by="alpha")
    for direction, look in rate_styles(own, sides).items():
        points = own.loc[own["direction"] == direction]
        label = plain(direction_label(direction))
        ends = [f"{metric}_{end}" for end in ("delta", "ci_low", "ci_high")]
        named = {"name": label, "legendgroup": direction, "mode": "lines+markers"}
        yield go.Scatter(
            x=list(points["alpha"]),
            y=list(points[metric]),
            customdata=points[ends].to_numpy(),
            hovertemplate=f"<b>{label}</b><br>α = %{{x}}<br>%{{y}}<br>Δ %{{customdata[0]:.3f}} "
            "[%{customdata[1]:.3f}, %{customdata[2]:.3f}]<extra></extra>",
            **{**named, **look},
        )


def rate_styles(table: pd.DataFrame, sides: Sides) -> dict[str, dict[str, Any]]:
    """Direction → line and marker; within a side they differ in shade and in symbol.

    Many random directions are thin lines under one name.
    """

    def look(colour: str, nth: int, dash: str, width: float) -> dict[str, Any]:
        marker = {"color": colour, "size": 7, "symbol": SYMBOLS[nth % len(SYMBOLS)]}
        return {"line": {"color": colour, "width": width, "dash": dash}, "marker": marker}

    found: dict[str, dict[str, Any]] = {}
    seen: Counter[int] = Counter()
    names = set(run_folder.candidates(table)["direction"])
    for index, direction in sorted((side_index(name, sides), name) for name in names):
        nth, shades = seen[index], SHADES[index]
        seen[index] += 1
        found[direction] = look(shades[nth % len(shades)], nth, "solid", 2.25)
    random = sorted(set(run_folder.controls(table)["direction"]))
    for nth, direction in enumerate(random):
        found[direction] = look(NULL, nth, "dot", 1.5)
        if len(random) > NAMED_CONTROLS:
            line = {"color": NULL, "width": 0.75, "dash": "solid"}
            thin = {"line": line, "mode": "lines", "opacity": 0.5}
            group = {"legendgroup": "random", "showlegend": nth == 0}
            found[direction] = {**thin, **group, "name": f"{len(random)} random directions"}
    return found


def claim_dots(claims: pd.DataFrame, sides: Sides) -> Iterator[go.Scatter]:
    """One dot for each candidate at its T, grouped for the legend as in the dose-response."""
    sizes = pd.Series(list(claims["T"]), index=list(claims["direction"]), dtype=float)
    style = styles(sizes, claims, sides)
    rows = claims.assign(group=[style[d].group for d in claims["direction"]])
    for group, own in rows.groupby("group", sort=False):
        first = style[own["direction"].iloc[0]]
        yield go.Scatter(
            x=list(own["T"]),
            y=[direction_label(d) for d in own["direction"]],
            customdata=own[["effect", "alpha", "p_value", "q_value"]].astype(float).values.tolist(),
            mode="markers",
            marker={"color": first.colour, "size": 9, "line": {"color": "white", "width": 1}},
            name=plain(f"{group} ({len(own)})"),
            legendrank=first.legend_rank,
            hovertemplate="<b>%{y}</b><br>T %{x:.4g}"
            "<br>Δ %{customdata[0]:.4g} at α = %{customdata[1]}"
            "<br>p %{customdata[2]:.4f}, q %{customdata[3]:.4f}<extra></extra>",
        )
