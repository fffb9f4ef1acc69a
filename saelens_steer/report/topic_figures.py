"""Feature strengths by category of a topic, as a heatmap and as bars in perspective.

The bars are flat polygons drawn from back to front. They need no WebGL, so they work in every
browser, in print and in saved files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from saelens_steer.numbers import short
from saelens_steer.report import theme
from saelens_steer.report.theme import BAND_OUTER, MUTED, RULE, SHADES, SIDE_COLOURS, plain

MOST_FEATURES, MOST_CATEGORIES = 40, 40
"""With more bars they would hide each other, so only the strongest are drawn."""
WIDE, DEEP = 0.62, 0.7
"""A bar's share of its cell, along the categories and into the depth."""
SHIFT = 0.42
"""Shift of each row to the right of the row in front, in categories."""
TALLEST = 11.0
"""Height of the highest bar, in rows."""
ROW = 14
"""Pixels between rows."""
Number = int | float
Data = Mapping[str, Any]
"""The content of feature_pages.json."""
TopicRow = tuple[str, str, Sequence[Number]]
"""A feature's label, its side, and its strength in each category."""
Polygon = Sequence[tuple[Number, Number]]


def topic_heatmap(data: Data) -> go.Figure:
    """Features × categories, in the order of the pages."""
    heat = go.Heatmap(
        z=data["topic"]["strengths"],
        x=_names(data),
        y=[label for label, *_ in _rows(data)],
        zmin=0,
        colorscale=[[0, "#FFFFFF"], [0.5, SHADES[0][1]], [1, SHADES[0][2]]],
        xgap=1,
        ygap=1,
        hovertemplate="%{y} on %{x}<br>strength %{z:.4g}<extra></extra>",
        colorbar={"title": {"text": "z", "font": {"color": MUTED}}, "thickness": 12},
    )
    figure = go.Figure(heat)
    figure.update_xaxes(type="category", tickangle=-60, ticks="", showgrid=False)
    figure.update_yaxes(type="category", autorange="reversed", ticks="", showgrid=False, dtick=1)
    figure.update_layout(margin={"l": 96, "r": 24, "t": 64, "b": 84})
    return theme.base(figure, "Activation by category", 150 + 20 * len(data["pages"]))


def topic_bars(data: Data) -> go.Figure:
    """The same strengths as bars: categories to the right, stronger features further back."""
    rows, names = _drawn(data)
    most = max((value for *_, own in rows for value in own), default=0.0) or 1.0
    corners = [(0.0, 0.0), (len(names), 0.0), (len(names), len(rows)), (0, len(rows))]
    floor = [_at(x - 0.2, depth, 0) for x, depth in corners]
    figure = go.Figure(_polygons([floor], BAND_OUTER, RULE))
    for depth, (_, side, strengths) in reversed(list(enumerate(rows))):
        front, top, right = _shades(data, side)
        faces = [_faces(i, depth, TALLEST * v / most) for i, v in enumerate(strengths)]
        for polygons, fill in zip(zip(*faces, strict=True), (right, top, front), strict=True):
            figure.add_trace(_polygons(polygons, fill, right))
    figure.add_trace(_hover(rows, names, most))
    for side in sorted({side for _, side, _ in rows}, key=lambda side: side or "\uffff"):
        label = f"{side} candidates" if side else "others"
        colour = _shades(data, side)[0]
        figure.add_trace(theme.legend_key(label, symbol="square", size=11, color=colour))
    _label_axes(figure, rows, names, most)
    figure.update_layout(margin={"r": 92, "b": 84}, legend_y=1.0)
    height = 170 + round(ROW * (len(rows) + TALLEST))
    return theme.base(figure, "Activation by category, in perspective", height)


def bars_caption(data: Data) -> str:
    """How to read the bars, and which features and categories are omitted."""
    counts = {
        "features": (MOST_FEATURES, len(data["topic"]["strengths"])),
        "categories": (MOST_CATEGORIES, len(data["topic"]["categories"])),
    }
    left = [f"the {most} strongest of {n} {what}" for what, (most, n) in counts.items() if n > most]
    shown = f" Only {' and '.join(left)} are drawn." if left else ""
    return (
        "Features run from weakest (front) to strongest (back); hover over the top of a bar for "
        f"its value.{shown}"
    )


def side_place(data: Data, side: str) -> int:
    """Index of a side's colour: 0 for the positive side, 1 for the negative, 2 for any other."""
    sides = list(data.get("sides", ()))
    return sides.index(side) if side in sides[:2] else 2


def _shades(data: Data, side: str) -> tuple[str, str, str]:
    """Front, top and right side of the bars of a side's features."""
    place = side_place(data, side)
    return SIDE_COLOURS[place], SHADES[place][1], SHADES[place][2]


def _rows(data: Data) -> list[TopicRow]:
    strengths = data["topic"]["strengths"]
    return [
        (f"feature {page['feature']}", page["side"], own)
        for page, own in zip(data["pages"], strengths, strict=True)
    ]


def _names(data: Data) -> list[str]:
    return [plain(name or "(none)") for name in data["topic"]["categories"]]


def _drawn(data: Data) -> tuple[list[TopicRow], list[str]]:
    """The strongest rows from front to back, and the categories that are drawn."""
    rows, names = sorted(_rows(data), key=lambda row: sum(row[2]))[-MOST_FEATURES:], _names(data)
    peaks = [max((own[i] for *_, own in rows), default=0.0) for i in range(len(names))]
    kept = sorted(sorted(range(len(names)), key=lambda i: -peaks[i])[:MOST_CATEGORIES])
    shown: list[TopicRow] = [(label, side, [own[i] for i in kept]) for label, side, own in rows]
    return shown, [names[i] for i in kept]


def _at(x: Number, depth: Number, height: Number) -> tuple[Number, Number]:
    """The position in the figure of a point in space."""
    return x + SHIFT * depth, depth + height


def _faces(x: int, depth: int, height: Number) -> tuple[Polygon, Polygon, Polygon]:
    """Right side, top and front of a bar, in the order in which they are drawn."""
    (a, b), (near, far) = (x, x + WIDE), (depth, depth + DEEP)
    right = [_at(b, near, 0), _at(b, far, 0), _at(b, far, height), _at(b, near, height)]
    top = [_at(a, near, height), _at(b, near, height), _at(b, far, height), _at(a, far, height)]
    front = [_at(a, near, 0), _at(b, near, 0), _at(b, near, height), _at(a, near, height)]
    return right, top, front


def _polygons(corners: Sequence[Polygon], fill: str, line: str) -> go.Scatter:
    """Closed polygons in one trace; bars of one row never overlap."""
    gap = (None, None)
    outlines = [[(round(x, 3), round(y, 3)) for x, y in polygon] for polygon in corners]
    points = [point for outline in outlines for point in (*outline, outline[0], gap)]
    return go.Scatter(
        x=[x for x, _ in points],
        y=[y for _, y in points],
        mode="lines",
        fill="toself",
        fillcolor=fill,
        line={"color": line, "width": 0.5},
        hoverinfo="skip",
        showlegend=False,
    )


def _hover(rows: Sequence[TopicRow], names: Sequence[str], most: Number) -> go.Scatter:
    """Invisible markers on top of the bars that show their values on hover."""
    tops = [
        (_at(i + WIDE / 2, depth + DEEP / 2, TALLEST * v / most), (label, names[i], v))
        for depth, (label, _, own) in reversed(list(enumerate(rows)))
        for i, v in enumerate(own)
    ]
    return go.Scatter(
        x=[round(x, 3) for (x, _), _ in tops],
        y=[round(y, 3) for (_, y), _ in tops],
        mode="markers",
        marker={"size": 8, "opacity": 0},
        customdata=[about for _, about in tops],
        hovertemplate="%{customdata[0]} on %{customdata[1]}<br>strength %{customdata[2]:.4g}"
        "<extra></extra>",
        showlegend=False,
    )


def _label_axes(
    figure: go.Figure, rows: Sequence[TopicRow], names: Sequence[str], most: Number
) -> None:
    """Categories along the front, strengths up the left edge, features at the ends of the rows."""
    n, ticks, bare = len(names), _ticks(most), {"showgrid": False, "showline": False}
    figure.update_xaxes(
        tickvals=[i + WIDE / 2 for i in range(n)],
        ticktext=names,
        tickangle=-60,
        range=[-0.6, n + SHIFT * len(rows)],
        **bare,
    )
    figure.update_yaxes(
        tickvals=[TALLEST * value / most for value in ticks],
        ticktext=[short(value) for value in ticks],
        title_text="Strength (mean largest activation, units of z)",
        range=[-0.3, len(rows) + TALLEST + 0.5],
        **bare,
    )
    end = {"showarrow": False, "xanchor": "left", "xshift": 4, "name": "end-label"}
    for depth, (label, *_) in enumerate(rows):
        x, y = _at(n - 0.2, depth + DEEP / 2, 0)
        figure.add_annotation(x=x, y=y, text=label, font={"size": 10.5, "color": MUTED}, **end)


def _ticks(most: Number) -> list[float]:
    """Round numbers from 0 to at most `most`, four to ten of them."""
    step = 10.0 ** math.floor(math.log10(most / 2))
    step *= next(times for times in (5, 2, 1) if most >= 3 * times * step or times == 1)
    return [round(i * step, 9) for i in range(int(most / step) + 1)]
