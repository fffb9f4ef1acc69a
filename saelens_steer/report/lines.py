"""What stands for one direction in a figure: its colour, its line, its label."""

from __future__ import annotations

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
    column,
    controls,
    having,
    largest_effect,
    where,
    with_texts,
)
from saelens_steer.report.theme import (
    INK,
    NULL,
    SHADES,
    SIDE_COLOURS,
    direction_label,
    plain,
    quoted,
)

LABELLED = 2
"""So many directions of each side carry error bars and a label at the end of their line."""
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross")


@dataclass(frozen=True)
class Style:
    """How one candidate is drawn."""

    group: str
    """The legend entry it belongs to."""
    colour: str
    strong: bool
    """Drawn thick, with error bars and a label."""
    order: int
    """Drawn later, that is on top, where larger."""


def side_colour(index: int) -> str:
    """The colour of the first (positive), second (negative) or any other side."""
    return SIDE_COLOURS[min(index, len(SIDE_COLOURS) - 1)]


def side_order(sides: Mapping[str, str] | None) -> list[str]:
    """The sides in the order in which they were given (positive first)."""
    return list(dict.fromkeys((sides or {}).values()))


def side_index(direction: str, sides: Mapping[str, str] | None) -> int:
    """0 for the positive side, 1 for the negative, 2 for neither; 0 where no sides are known."""
    order = side_order(sides)
    side = (sides or {}).get(direction)
    return order.index(side) if side in order else (2 if order else 0)


def verdicts(claims: pd.DataFrame | None, metric: str) -> dict[str, str]:
    """Direction → verdict on one metric."""
    if claims is None or claims.empty:
        return {}
    own = claims_on(claims, metric)
    return {str(d): str(v) for d, v in zip(own["direction"], own["verdict"], strict=True)}


def styles(
    sizes: pd.Series, verdict: Mapping[str, str], sides: Mapping[str, str] | None
) -> dict[str, Style]:
    """A style for each candidate in `sizes` (direction → T), strongest first."""
    found: dict[str, Style] = {}
    strong: dict[int, int] = {}
    for direction in map(str, sizes.sort_values(ascending=False).index):
        judged = verdict.get(direction, "")
        index = side_index(direction, sides)
        null = judged == FAILS
        strong[index] = strong.get(index, 0) + (not null)
        side = (sides or {}).get(direction, "other" if sides else "")
        group = judged if null else ", ".join(filter(None, [f"{side} candidates".strip(), judged]))
        bold = not null and strong[index] <= LABELLED
        found[direction] = Style(
            group, NULL if null else side_colour(index), bold, 2 * bold + (not null)
        )
    return found


def legend_rank(style: Style) -> int:
    """Sides in their order, then what is no more than random; before the controls (1000)."""
    if style.colour == NULL:
        return 900
    return 100 + SIDE_COLOURS.index(style.colour)


def candidate_lines(
    table: pd.DataFrame,
    metric: str,
    claims: pd.DataFrame | None,
    sides: Mapping[str, str] | None,
    labels: Mapping[str, str] | None = None,
) -> Iterator[tuple[go.Scatter, dict[str, Any] | None]]:
    """A line for each candidate, greyed ones first, and for the strongest a label at its end."""
    style = styles(largest_effect(table, metric), verdicts(claims, metric), sides)
    counts = pd.Series([s.group for s in style.values()]).value_counts()
    named: set[str] = set()
    for direction, own in sorted(style.items(), key=lambda item: item[1].order):
        points = where(table, column(table, "direction") == direction)
        points = having(points, f"{metric}_delta").sort_values(by="alpha")
        trace = _line(points, metric, own, quoted((labels or {}).get(direction, "")))
        trace.update(name=plain(f"{own.group} ({counts[own.group]})"), legendgroup=own.group)
        trace.update(showlegend=own.group not in named, legendrank=legend_rank(own))
        named.add(own.group)
        yield trace, _end_label(direction, points, metric, own.colour) if own.strong else None


def _line(points: pd.DataFrame, metric: str, style: Style, said: str) -> go.Scatter:
    delta, low, high = (column(points, f"{metric}_{e}") for e in ("delta", "ci_low", "ci_high"))
    label = plain(direction_label(str(points["direction"].iloc[0])))
    beside = [[plain(said)] * len(points)] if said else []
    return go.Scatter(
        x=list(points["alpha"]),
        y=list(delta),
        customdata=list(zip(low, high, *beside, strict=True)),
        mode="lines+markers",
        line={"color": style.colour, "width": 2.5 if style.strong else 1.25},
        marker={"size": 6 if style.strong else 4, "color": style.colour},
        opacity=1.0 if style.strong else 0.7,
        error_y=_error(delta, low, high, style.colour) if style.strong else None,
        hovertemplate=f"<b>{label}</b>{'<br>%{customdata[2]}' if said else ''}"
        "<br>α = %{x}<br>Δ %{y:.4g} "
        f"[%{{customdata[0]:.4g}}, %{{customdata[1]:.4g}}]<br>{plain(style.group)}<extra></extra>",
    )


def _error(delta: pd.Series, low: pd.Series, high: pd.Series, colour: str) -> dict[str, Any]:
    up, down = (high - delta).clip(lower=0), (delta - low).clip(lower=0)
    bars = {"array": list(up), "arrayminus": list(down), "symmetric": False, "type": "data"}
    return bars | {"color": colour, "thickness": 1.25, "width": 4}


def _end_label(direction: str, points: pd.DataFrame, metric: str, colour: str) -> dict[str, Any]:
    return {
        "name": "end-label",
        "x": 1,
        "xref": "paper",
        "xanchor": "left",
        "xshift": 6,
        "y": float(points[f"{metric}_delta"].iloc[-1]),
        "text": plain(direction_label(direction)),
        "font": {"color": colour, "size": 12},
        "showarrow": False,
    }


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
    looks = rate_styles(own, sides)
    for direction, look in looks.items():
        points = where(own, column(own, "direction") == direction)
        label = plain(direction_label(direction))
        yield go.Scatter(
            x=list(points["alpha"]),
            y=list(points[metric]),
            customdata=points[
                [f"{metric}_{end}" for end in ("delta", "ci_low", "ci_high")]
            ].to_numpy(),
            name=label,
            legendgroup=direction,
            mode="lines+markers",
            hovertemplate=f"<b>{label}</b><br>α = %{{x}}<br>%{{y}}<br>Δ %{{customdata[0]:.3f}} "
            "[%{customdata[1]:.3f}, %{customdata[2]:.3f}]<extra></extra>",
            **look,
        )


def rate_styles(table: pd.DataFrame, sides: Mapping[str, str] | None) -> dict[str, dict[str, Any]]:
    """Direction → line and marker; within a side they differ in shade and in symbol."""
    under_test = sorted(
        set(candidates(table)["direction"]), key=lambda d: (side_index(d, sides), d)
    )
    rest = sorted(set(controls(table)["direction"]))
    seen: dict[int, int] = {}
    found = {d: _look(NULL, i, "dot", 1.5) for i, d in enumerate(rest)}
    for direction in under_test:
        index = min(side_index(direction, sides), len(SHADES) - 1)
        nth = seen[index] = seen.get(index, -1) + 1
        found[direction] = _look(SHADES[index][nth % len(SHADES[index])], nth, "solid", 2.25)
    return {d: found[d] for d in [*under_test, *rest]}


def _look(colour: str, nth: int, dash: str, width: float) -> dict[str, Any]:
    symbol = SYMBOLS[nth % len(SYMBOLS)]
    return {
        "line": {"color": colour, "width": width, "dash": dash},
        "marker": {"color": colour, "size": 7, "symbol": symbol},
    }


def is_rate(values: pd.Series) -> bool:
    """Whether all values lie in 0…1."""
    return bool(values.dropna().between(0, 1).all())


def claim_dots(claims: pd.DataFrame, sides: Mapping[str, str] | None) -> Iterator[go.Scatter]:
    """One dot for each candidate at its T, grouped for the legend as in the dose-response."""
    sizes = pd.Series(list(claims["T"]), index=list(claims["direction"]), dtype=float)
    verdict = dict(zip(claims["direction"], claims["verdict"].astype(str), strict=True))
    style = styles(sizes, verdict, sides)
    rows = claims.assign(group=[style[d].group for d in claims["direction"]])
    for group, own in rows.groupby("group", sort=False):
        colour = style[own["direction"].iloc[0]].colour
        yield go.Scatter(
            x=list(own["T"]),
            y=[direction_label(d) for d in own["direction"]],
            customdata=own[["effect", "alpha", "p_value", "q_value"]]
            .astype(float)
            .to_numpy()
            .tolist(),
            mode="markers",
            marker={"color": colour, "size": 9, "line": {"color": "white", "width": 1}},
            name=plain(f"{group} ({len(own)})"),
            legendrank=legend_rank(style[own["direction"].iloc[0]]),
            hovertemplate="<b>%{y}</b><br>T %{x:.4g}"
            "<br>Δ %{customdata[0]:.4g} at α = %{customdata[1]}"
            "<br>p %{customdata[2]:.4f}, q %{customdata[3]:.4f}<extra></extra>",
        )


def quantile_ticks(claims: pd.DataFrame) -> go.Scatter:
    """A tick for each candidate where 95 % of the controls that it is compared with end."""
    return go.Scatter(
        x=list(claims["control_quantile"]),
        y=[direction_label(d) for d in claims["direction"]],
        mode="markers",
        marker={"symbol": "line-ns", "size": 13, "line": {"color": INK, "width": 1.5}},
        name="95 % of its controls",
        hovertemplate="95 % of the controls below %{x:.4g}<extra></extra>",
    )
