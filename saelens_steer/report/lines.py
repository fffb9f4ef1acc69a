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
from saelens_steer.report.run_folder import (
    candidates,
    claims_on,
    controls,
    largest_effect,
    with_texts,
)
from saelens_steer.report.theme import (
    NULL,
    SHADES,
    SIDE_COLOURS,
    direction_label,
    plain,
    quoted,
)

LABELLED = 2
"""Directions per side that carry error bars and a label at the end of their line."""
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross")


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

    @property
    def order(self) -> int:
        """Larger values are drawn later, on top."""
        return 2 * self.strong + (self.colour != NULL)


def side_colour(index: int) -> str:
    """The colour of the first (positive), second (negative) or any other side."""
    return SIDE_COLOURS[min(index, len(SIDE_COLOURS) - 1)]


def side_index(direction: str, sides: Mapping[str, str] | None) -> int:
    """0 for the positive side, 1 for the negative, 2 for neither; 0 if no sides are known."""
    order = list(dict.fromkeys((sides or {}).values()))
    side = (sides or {}).get(direction)
    return order.index(side) if side in order else (2 if order else 0)


def styles(
    sizes: pd.Series, claims: pd.DataFrame | None, sides: Mapping[str, str] | None
) -> dict[str, Style]:
    """A style for each candidate in `sizes` (direction → T), strongest first.

    claims: of one metric; without claims, no direction has a verdict.
    """
    rows = [] if claims is None else zip(claims["direction"], claims["verdict"], strict=True)
    verdicts = {str(direction): str(verdict) for direction, verdict in rows}
    found: dict[str, Style] = {}
    drawn: dict[int, int] = {}
    for direction in map(str, sizes.sort_values(ascending=False).index):
        verdict = verdicts.get(direction, "")
        if verdict == FAILS:
            found[direction] = Style(verdict, NULL, False, 900)
            continue
        index = side_index(direction, sides)
        drawn[index] = drawn.get(index, 0) + 1
        side = (sides or {}).get(direction, "other" if sides else "")
        group = ", ".join(filter(None, [f"{side} candidates".strip(), verdict]))
        colour = side_colour(index)
        rank = 100 + SIDE_COLOURS.index(colour)
        found[direction] = Style(group, colour, drawn[index] <= LABELLED, rank)
    return found


def candidate_lines(
    table: pd.DataFrame,
    metric: str,
    claims: pd.DataFrame | None,
    sides: Mapping[str, str] | None,
    labels: Mapping[str, str] | None = None,
) -> Iterator[tuple[go.Scatter, dict[str, Any] | None]]:
    """A line for each candidate, grey ones first, with an end label for the strongest."""
    judged = None if claims is None or claims.empty else claims_on(claims, metric)
    style = styles(largest_effect(table, metric), judged, sides)
    counts = pd.Series([s.group for s in style.values()]).value_counts()
    named: set[str] = set()
    for direction, own in sorted(style.items(), key=lambda item: item[1].order):
        points = table.loc[table["direction"] == direction].dropna(subset=[f"{metric}_delta"])
        points = points.sort_values(by="alpha")
        trace = _line(points, metric, own, quoted((labels or {}).get(direction, "")))
        trace.update(name=plain(f"{own.group} ({counts[own.group]})"), legendgroup=own.group)
        trace.update(showlegend=own.group not in named, legendrank=own.legend_rank)
        named.add(own.group)
        end_label = {
            "name": "end-label",
            "x": 1,
            "xref": "paper",
            "xanchor": "left",
            "xshift": 6,
            "y": float(points[f"{metric}_delta"].iloc[-1]),
            "text": plain(direction_label(direction)),
            "font": {"color": own.colour, "size": 12},
            "showarrow": False,
        }
        yield trace, end_label if own.strong else None


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


def spread(figure: go.Figure, gap: float = 0.055) -> None:
    """Move the labels at the ends of lines apart, by at least `gap` of the figure's height."""
    layout: Any = figure.layout
    labels = sorted((a for a in layout.annotations if a.name == "end-label"), key=lambda a: a.y)
    values = [v for trace in figure.data for v in trace.y]
    step = gap * ((max(values) - min(values)) if values else 0)
    for below, label in pairwise(labels):
        label.y = max(label.y, below.y + step)


def rate_lines(
    summary: pd.DataFrame, metric: str, sides: Mapping[str, str] | None
) -> Iterator[go.Scatter]:
    """A line for each direction with completions: candidates in colour, controls grey."""
    own = with_texts(summary, [metric]).sort_values(by="alpha")
    for direction, look in rate_styles(own, sides).items():
        points = own.loc[own["direction"] == direction]
        label = plain(direction_label(direction))
        ends = [f"{metric}_{end}" for end in ("delta", "ci_low", "ci_high")]
        yield go.Scatter(
            x=list(points["alpha"]),
            y=list(points[metric]),
            customdata=points[ends].to_numpy(),
            name=label,
            legendgroup=direction,
            mode="lines+markers",
            hovertemplate=f"<b>{label}</b><br>α = %{{x}}<br>%{{y}}<br>Δ %{{customdata[0]:.3f}} "
            "[%{customdata[1]:.3f}, %{customdata[2]:.3f}]<extra></extra>",
            **look,
        )


def rate_styles(table: pd.DataFrame, sides: Mapping[str, str] | None) -> dict[str, dict[str, Any]]:
    """Direction → line and marker; within a side they differ in shade and in symbol."""

    def look(colour: str, nth: int, dash: str, width: float) -> dict[str, Any]:
        marker = {"color": colour, "size": 7, "symbol": SYMBOLS[nth % len(SYMBOLS)]}
        return {"line": {"color": colour, "width": width, "dash": dash}, "marker": marker}

    found: dict[str, dict[str, Any]] = {}
    seen: Counter[int] = Counter()
    names = set(candidates(table)["direction"])
    for direction in sorted(names, key=lambda d: (side_index(d, sides), d)):
        index = min(side_index(direction, sides), len(SHADES) - 1)
        nth = seen[index]
        seen[index] += 1
        found[direction] = look(SHADES[index][nth % len(SHADES[index])], nth, "solid", 2.25)
    for nth, direction in enumerate(sorted(set(controls(table)["direction"]))):
        found[direction] = look(NULL, nth, "dot", 1.5)
    return found


def claim_dots(claims: pd.DataFrame, sides: Mapping[str, str] | None) -> Iterator[go.Scatter]:
    """One dot for each candidate at its T, grouped for the legend as in the dose-response."""
    sizes = pd.Series(list(claims["T"]), index=list(claims["direction"]), dtype=float)
    style = styles(sizes, claims, sides)
    rows = claims.assign(group=[style[d].group for d in claims["direction"]])
    for group, own in rows.groupby("group", sort=False):
        first = style[own["direction"].iloc[0]]
        numbers = own[["effect", "alpha", "p_value", "q_value"]].astype(float)
        yield go.Scatter(
            x=list(own["T"]),
            y=[direction_label(d) for d in own["direction"]],
            customdata=numbers.to_numpy().tolist(),
            mode="markers",
            marker={"color": first.colour, "size": 9, "line": {"color": "white", "width": 1}},
            name=plain(f"{group} ({len(own)})"),
            legendrank=first.legend_rank,
            hovertemplate="<b>%{y}</b><br>T %{x:.4g}"
            "<br>Δ %{customdata[0]:.4g} at α = %{customdata[1]}"
            "<br>p %{customdata[2]:.4f}, q %{customdata[3]:.4f}<extra></extra>",
        )
