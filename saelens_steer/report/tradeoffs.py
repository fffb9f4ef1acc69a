"""Effect against damage: directions and edits, on one domain and on the others."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from saelens_steer.numbers import count, decimals, number
from saelens_steer.report import theme
from saelens_steer.report.markup import chart, render
from saelens_steer.report.run_folder import RunTables
from saelens_steer.report.theme import (
    INK,
    SIDE_COLOURS,
    axis_label,
    legend_key,
    name_label,
    plain,
)
from saelens_steer.steering import direction_label

GATED = "gate="
"""Edits that act only on some prompts; the others act on every prompt."""
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star")
FLOOR = 1e-6
"""KL is drawn on a logarithmic axis, which has no 0."""


def tradeoffs_section(run: RunTables) -> str:
    """The front, the strengths of equal effect, and effects by domain; empty without tradeoffs."""
    if run.tradeoffs.empty:
        return ""
    rows, by_domain = equal_effects(run.tradeoffs), {}
    if len(run.tradeoffs_by_domain):
        strongest = strongest_edits(run.tradeoffs_by_domain).iloc[0]
        plot = by_domain_figure(run.tradeoffs_by_domain, run.tradeoffs, run.units)
        by_domain = {"chart": chart("effect-by-domain", plot), **strongest[["edit", "alpha"]]}
    return render(
        "tradeoffs.html",
        sentence=front_sentence(run.tradeoffs),
        front=chart("effect-against-damage", tradeoffs_figure(run.tradeoffs, run.units)),
        rows=rows.to_dict("records"),
        texts="damage_texts" in rows,
        places=decimals(rows["damage_kl"]),
        by_domain=by_domain,
    )


def equal_effects(front: pd.DataFrame) -> Any:
    """The rows at the strength of equal effect, least damage first; those not reached last."""
    rows = pd.DataFrame(front[front["kind"] == "equal_effect"])
    return rows.sort_values(by=["damage_kl"], kind="stable", na_position="last")


def front_sentence(front: pd.DataFrame) -> str:
    """The damage of the cheapest pair, compared with the baseline; empty without equal effects.

    Gated edits without measurable damage are named separately: that is a property of their gate,
    not of the direction. A ceiling is never named.
    """
    rows = equal_effects(front)
    reached = rows[rows["alpha"].notna() & (rows["evidence"] != "ceiling")]
    if reached.empty:
        return ""
    gated = reached["edit"].str.contains(GATED, regex=False)
    closed, always = reached[gated & (reached["damage_kl"] <= FLOOR)], reached[~gated]
    parts = []
    if edits := list(dict.fromkeys(closed["edit"])):
        does = "do no measurable damage: their gates stay"
        does = does if len(edits) > 1 else "does no measurable damage: its gate stays"
        parts.append(f"{' and '.join(edits)} {does} closed on the other domains")
    if len(always):
        which = " that act on every prompt" if edits else ""
        of = f"{'the ' if edits else ''}{count(len(always), 'pair')}{which}"
        parts.append(_least(always, of, reached[reached["baseline"].astype(bool)]))
    size, metric = number(reached["effect"].mean(), 1), reached["metric"].iloc[0]
    at = f"At an effect of {size} on {metric} ({reached['domain'].iloc[0]} prompts)"
    return f"{at}, {'; '.join(parts)}." if parts else ""


def _least(rows: Any, of: str, baseline: Any) -> str:
    """The pair with the least damage, compared with the best pair of the baseline."""
    best = rows.iloc[0]
    damage = number(best["damage_kl"], 4)
    who = f"{_pair(best)}, the best feature chosen by mean difference," * bool(best["baseline"])
    least = f"of {of}, {who or _pair(best)} does the least damage"
    cost = f"{least}: {damage} nats of KL on the other domains"
    if baseline.empty:
        return f"{cost}; no feature chosen by mean difference reaches that effect"
    if best["baseline"]:
        return cost
    other = baseline.iloc[0]
    times = f"{number(best['ratio'], 3)} times the {number(other['damage_kl'], 4)}"
    return f"{cost}, {times} of {_pair(other)}, the best feature chosen by mean difference"


def _pair(row: Any) -> str:
    return f"{direction_label(str(row['direction']))} ({row['edit']})"


def tradeoffs_figure(front: pd.DataFrame, units: Mapping[str, str]) -> go.Figure:
    """Effect against damage, a colour for each direction and a symbol for each edit."""
    rows, plot = pd.DataFrame(front[front["effect"].notna()]), go.Figure()
    colours = dict(zip(dict.fromkeys(rows["direction"]), cycle(theme.COLOURS), strict=False))
    symbols = dict(zip(dict.fromkeys(rows["edit"]), cycle(SYMBOLS), strict=False))
    for (direction, edit), own in rows.groupby(["direction", "edit"], sort=False):  # type: ignore[misc]
        plot.add_trace(_points(own, str(edit), colours[direction], symbols[edit]))
    plot.add_trace(_front_line(rows))
    for direction, colour in colours.items():
        name = direction_label(direction)
        plot.add_trace(legend_key(name, color=colour, symbol="circle", size=9))
    for edit, symbol in symbols.items():
        plot.add_trace(legend_key(edit, color=theme.NULL, symbol=symbol, size=9))
    name = name_label(metric := str(rows["metric"].iloc[0]))
    damage = "Damage: mean KL on the other domains (nats)"
    plot.update_xaxes(type="log", dtick=1, exponentformat="power", title_text=damage)
    effect = axis_label(f"Effect: Δ {name}", units.get(metric, ""))
    plot.update_yaxes(title_text=effect, zeroline=True, zerolinecolor=theme.BAND_LINE)
    beside = {"orientation": "v", "x": 1.01, "y": 1, "yanchor": "top", "font": {"size": 11.5}}
    plot.update_layout(legend=beside, margin={"r": 250, "l": 84})
    return theme.base(plot, f"{name} against damage", 560)


def _points(own: Any, edit: str, colour: str, symbol: str) -> go.Scatter:
    names = own["direction"].astype(str).map(direction_label)
    best = own["on_pareto_front"].astype(bool)
    marker = {
        "color": colour,
        "symbol": symbol,
        "size": [12 if front else 8 for front in best],
        "line": {"color": INK, "width": list(1.2 * best)},
    }
    ends = own["effect_ci_low"], own["effect_ci_high"]
    return go.Scatter(
        x=[max(FLOOR, damage) for damage in own["damage_kl"]],
        y=list(own["effect"]),
        mode="markers",
        marker=marker,
        customdata=list(zip(names, own["alpha"], *ends, strict=True)),
        hovertemplate="%{customdata[0]}, " + plain(edit) + ", %{customdata[1]:.3g} × mean ‖x‖<br>"
        "effect %{y:.3g} [%{customdata[2]:.3g}, %{customdata[3]:.3g}]<br>damage %{x:.3g} nats"
        "<extra></extra>",
        showlegend=False,
    )


def _front_line(rows: pd.DataFrame) -> go.Scatter:
    """A line through the points that no other point beats on both effect and damage."""
    best = pd.DataFrame(rows[rows["on_pareto_front"].astype(bool)]).sort_values(by="effect")
    return go.Scatter(
        x=[max(FLOOR, damage) for damage in best["damage_kl"]],
        y=list(best["effect"]),
        mode="lines",
        line={"color": INK, "width": 1.25, "dash": "dot"},
        name="no other point is better on both",
        hoverinfo="skip",
    )


def by_domain_figure(
    matrix: pd.DataFrame, front: pd.DataFrame, units: Mapping[str, str]
) -> go.Figure:
    """Shift of the metric by direction and domain, plain addition at its largest strength."""
    metric = str(front["metric"].iloc[0])
    own = strongest_edits(matrix)
    grid = own.pivot(index="direction", columns="domain", values=f"{metric}_delta")
    grid = grid.reindex(index=list(dict.fromkeys(own["direction"]))[::-1])
    grid = grid[list(dict.fromkeys(own["domain"]))]
    values, most = grid.to_numpy(), float(grid.abs().to_numpy().max())
    places = decimals([most])
    heat = go.Heatmap(
        z=values,
        x=[plain(name) for name in grid.columns],
        y=[plain(direction_label(str(name))) for name in grid.index],
        zmin=-most,
        zmax=most,
        colorscale=[[0, SIDE_COLOURS[1]], [0.5, "#FFFFFF"], [1, SIDE_COLOURS[0]]],
        text=[[number(value, places, signed=True) for value in row] for row in values],
        texttemplate="%{text}",
        hovertemplate="%{y} on %{x}<br>Δ %{z:.3g}<extra></extra>",
        colorbar={"title": {"text": axis_label("Δ", units.get(metric, ""))}, "thickness": 12},
    )
    title = f"Δ {name_label(metric)} by domain"
    plot = go.Figure(heat).update_layout(margin={"l": 230, "r": 110})
    return theme.base(plot, title, 170 + 30 * len(grid))


def strongest_edits(matrix: Any) -> Any:
    """The rows of the first edit at the largest strength of the grid."""
    own = matrix[(matrix["kind"] == "grid") & (matrix["edit"] == matrix["edit"].iloc[0])]
    return own[own["alpha"] == own["alpha"].max()]
