"""Strength of features by category of a topic: a heatmap, and bars that stand in a room.

The bars are drawn as polygons in the plane, from the back to the front. That needs no WebGL, so it
works in every browser, in print and in a file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from saelens_steer.report.figures import base
from saelens_steer.report.theme import BAND_OUTER, MUTED, RULE, SHADES, SIDE_COLOURS, plain, short

MOST_FEATURES, MOST_CATEGORIES = 40, 40
"""Bars of more would hide each other: the strongest are drawn."""
WIDE, DEEP = 0.62, 0.7
"""A bar's share of its cell, along the categories and into the room."""
SHIFT = 0.42
"""How far to the right a row stands from the one before it, in categories."""
TALLEST = 11.0
"""The highest bar, in rows."""
ROW = 14
"""Pixels between rows."""
LABEL = "Strength (mean largest activation, units of z)"
Data = Mapping[str, Any]
Polygon = Sequence[tuple[int | float, int | float]]


@dataclass(frozen=True)
class TopicRow:
    """A feature's strengths by category."""

    feature: int
    side: str
    strengths: tuple[float, ...]

    @property
    def label(self) -> str:
        return f"feature {self.feature}"


def topic_heatmap(data: Data) -> go.Figure:
    """Features × categories, in the order of the pages."""
    rows, names = _rows(data), _names(data)
    heat = go.Heatmap(
        z=[row.strengths for row in rows],
        x=[plain(name) for name in names],
        y=[row.label for row in rows],
        zmin=0,
        colorscale=[[0, "#FFFFFF"], [0.5, SHADES[0][1]], [1, SHADES[0][2]]],
        xgap=1,
        ygap=1,
        hovertemplate="%{y} on %{x}<br>strength %{z:.4g}<extra></extra>",
        colorbar={"title": {"text": "z", "font": {"color": MUTED}}, "thickness": 12},
    )
    figure = base(go.Figure(heat), "Strength by category", 150 + 20 * len(rows))
    figure.update_xaxes(type="category", tickangle=-60, ticks="", showgrid=False)
    figure.update_yaxes(type="category", autorange="reversed", ticks="", showgrid=False, dtick=1)
    return figure.update_layout(margin={"l": 96, "r": 24, "t": 64, "b": 84})


def topic_bars(data: Data) -> go.Figure:
    """The same as bars in a room: categories to the right, the stronger features further back."""
    rows, places = _drawn(data)
    names = [_names(data)[place] for place in places]
    most = max((value for row in rows for value in row.strengths), default=0.0) or 1.0
    figure = go.Figure(_floor(len(rows), len(places)))
    for depth in reversed(range(len(rows))):
        for trace in _bars_of(rows[depth], depth, most, data):
            figure.add_trace(trace)
    figure.add_trace(_hover(rows, names, most))
    figure.add_traces(_keys(rows, data))
    _label(figure, rows, names, most)
    height = 170 + round(ROW * (len(rows) + TALLEST))
    return base(figure, "Strength by category, in a room", height)


def bars_caption(data: Data) -> str:
    """How to read the bars, and what of them was left out."""
    topic = data["topic"]
    left = [
        f"the {most} strongest of {n} {what}"
        for n, most, what in (
            (len(topic["strengths"]), MOST_FEATURES, "features"),
            (len(topic["categories"]), MOST_CATEGORIES, "categories"),
        )
        if n > most
    ]
    shown = f" Drawn are {' and '.join(left)}." if left else ""
    return f"Stronger features stand further back. Point at the top of a bar for its number.{shown}"


def _rows(data: Data) -> list[TopicRow]:
    strengths = data["topic"]["strengths"]
    return [
        TopicRow(page["feature"], page["side"], tuple(own))
        for page, own in zip(data["pages"], strengths, strict=True)
    ]


def _names(data: Data) -> list[str]:
    return [name or "(none)" for name in data["topic"]["categories"]]


def _drawn(data: Data) -> tuple[list[TopicRow], list[int]]:
    """The rows from front to back, and the places of the categories that are drawn."""
    rows = sorted(_rows(data), key=lambda row: sum(row.strengths))[-MOST_FEATURES:]
    n = len(data["topic"]["categories"])
    peaks = [max((row.strengths[place] for row in rows), default=0.0) for place in range(n)]
    places = sorted(sorted(range(n), key=lambda place: -peaks[place])[:MOST_CATEGORIES])
    kept = [
        TopicRow(r.feature, r.side, tuple(r.strengths[place] for place in places)) for r in rows
    ]
    return kept, places


def _at(x: int | float, depth: int | float, height: int | float) -> tuple[int | float, int | float]:
    """Where a point of the room is drawn."""
    return x + SHIFT * depth, depth + height


def _floor(n_rows: int, n_columns: int) -> go.Scatter:
    corners = [(0.0, 0.0), (n_columns, 0.0), (n_columns, n_rows), (0.0, n_rows)]
    return _polygons([[_at(x - 0.2, depth, 0) for x, depth in corners]], BAND_OUTER, RULE)


def _bars_of(row: TopicRow, depth: int, most: float, data: Data) -> list[go.Scatter]:
    """The sides, tops and fronts of a row's bars; inside a row no bar hides another."""
    front, top, side = _shades(data, row.side)
    faces = [_faces(i, depth, TALLEST * v / most) for i, v in enumerate(row.strengths)]
    fronts, tops, sides = ([face[k] for face in faces] for k in range(3))
    return [
        _polygons(group, fill, side)
        for group, fill in ((sides, side), (tops, top), (fronts, front))
    ]


def _faces(x: int, depth: int, height: float) -> tuple[Polygon, Polygon, Polygon]:
    """Front, top and right side of a bar."""
    (a, b), (near, far) = (x, x + WIDE), (depth, depth + DEEP)
    front = [_at(a, near, 0), _at(b, near, 0), _at(b, near, height), _at(a, near, height)]
    top = [_at(a, near, height), _at(b, near, height), _at(b, far, height), _at(a, far, height)]
    side = [_at(b, near, 0), _at(b, far, 0), _at(b, far, height), _at(b, near, height)]
    return front, top, side


def side_place(data: Data, side: str) -> int:
    """Which of the three colours a side has: 0 the positive, 1 the negative, 2 any other."""
    sides = list(data.get("sides", ()))
    return sides.index(side) if side in sides[:2] else 2


def _shades(data: Data, side: str) -> tuple[str, str, str]:
    """Front, top and side of the bars of a side's features."""
    place = side_place(data, side)
    return SIDE_COLOURS[place], SHADES[place][1], SHADES[place][2]


def _polygons(corners: Sequence[Polygon], fill: str, line: str) -> go.Scatter:
    """Closed polygons in one trace."""
    x, y = list[float | None](), list[float | None]()
    for polygon in corners:
        closed = [*polygon, polygon[0]]
        x += [round(point[0], 3) for point in closed] + [None]
        y += [round(point[1], 3) for point in closed] + [None]
    return go.Scatter(
        x=x,
        y=y,
        mode="lines",
        fill="toself",
        fillcolor=fill,
        line={"color": line, "width": 0.5},
        hoverinfo="skip",
        showlegend=False,
    )


def _hover(rows: Sequence[TopicRow], names: Sequence[str], most: float) -> go.Scatter:
    """Unseen marks on the tops that say what a bar is."""
    tops = [
        (_at(i + WIDE / 2, depth + DEEP / 2, TALLEST * v / most), row.label, names[i], v)
        for depth, row in reversed(list(enumerate(rows)))
        for i, v in enumerate(row.strengths)
    ]
    return go.Scatter(
        x=[round(at[0], 3) for at, *_ in tops],
        y=[round(at[1], 3) for at, *_ in tops],
        mode="markers",
        marker={"size": 8, "opacity": 0},
        customdata=[(label, plain(name), value) for _, label, name, value in tops],
        hovertemplate=(
            "%{customdata[0]} on %{customdata[1]}<br>strength %{customdata[2]:.4g}<extra></extra>"
        ),
        showlegend=False,
    )


def _label(figure: go.Figure, rows: Sequence[TopicRow], names: Sequence[str], most: float) -> None:
    """Categories along the front, strengths up the left edge, features at the ends of the rows."""
    n, depth = len(names), len(rows)
    ticks = _ticks(most)
    figure.update_xaxes(
        tickvals=[i + WIDE / 2 for i in range(n)],
        ticktext=[plain(name) for name in names],
        tickangle=-60,
        showgrid=False,
        showline=False,
        range=[-0.6, n + SHIFT * depth],
    )
    figure.update_yaxes(
        tickvals=[TALLEST * value / most for value in ticks],
        ticktext=[short(value) for value in ticks],
        title_text=LABEL,
        showgrid=False,
        showline=False,
        range=[-0.3, depth + TALLEST + 0.5],
    )
    for place, row in enumerate(rows):
        x, y = _at(n - 0.2, place + DEEP / 2, 0)
        figure.add_annotation(
            x=x,
            y=y,
            text=row.label,
            showarrow=False,
            xanchor="left",
            xshift=4,
            name="end-label",
            font={"size": 10.5, "color": MUTED},
        )
    legend = {"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0, "xanchor": "left"}
    figure.update_layout(margin={"r": 92, "b": 84}, legend=legend)


def _ticks(most: float) -> list[float]:
    """Round numbers from 0 to at most `most`, four to ten of them."""
    step = 10.0 ** math.floor(math.log10(most / 2))
    step *= next(times for times in (5, 2, 1) if most >= 3 * times * step or times == 1)
    return [round(i * step, 9) for i in range(int(most / step) + 1)]


def _keys(rows: Sequence[TopicRow], data: Data) -> list[go.Scatter]:
    """The legend: which colour is which side."""
    sides = dict.fromkeys(row.side for row in sorted(rows, key=lambda row: row.side or "\uffff"))
    return [
        go.Scatter(
            x=[None],
            y=[None],
            mode="markers",
            marker={"symbol": "square", "size": 11, "color": _shades(data, side)[0]},
            name=plain(f"{side} candidates" if side else "others"),
        )
        for side in sides
    ]
