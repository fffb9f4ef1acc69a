"""Effect against damage: directions and edits, on one domain and on the others."""

from __future__ import annotations

from itertools import cycle
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from saelens_steer.report.figures import base
from saelens_steer.report.markup import chart, render
from saelens_steer.report.run_folder import RunTables
from saelens_steer.report.theme import (
    BAND_LINE,
    COLOURS,
    INK,
    NULL,
    SIDE_COLOURS,
    axis_label,
    decimals,
    direction_label,
    legend_key,
    metric_unit,
    name_label,
    number,
    plain,
)

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
    if not run.tradeoffs_by_domain.empty:
        own = strongest_edits(run.tradeoffs_by_domain)
        plot = by_domain_figure(run.tradeoffs_by_domain, run.tradeoffs)
        by_domain = {
            "chart": chart("effect-by-domain", plot),
            "edit": own["edit"].iloc[0],
            "alpha": float(own["alpha"].max()),
        }
    return render(
        "tradeoffs.html",
        sentence=front_sentence(run.tradeoffs),
        front=chart("effect-against-damage", tradeoffs_figure(run.tradeoffs)),
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
    if len(closed):
        names = " and ".join(dict.fromkeys(closed["edit"]))
        does = "do no measurable damage: their gates stay" if " and " in names else ""
        does = does or "does no measurable damage: its gate stays"
        parts.append(f"{names} {does} closed on the other domains")
    if len(always):
        of = f"the {len(always)} pairs that act on every prompt" if len(closed) else ""
        baseline = reached[reached["baseline"].astype(bool)]
        parts.append(_least(always, of or f"{len(always)} pairs", baseline))
    size, metric = number(reached["effect"].mean(), 1), reached["metric"].iloc[0]
    at = f"At an effect of {size} on {metric} ({reached['domain'].iloc[0]} prompts)"
    return f"{at}, {'; '.join(parts)}." if parts else ""


def _least(rows: Any, of: str, baseline: Any) -> str:
    """The pair with the least damage, compared with the best pair of the baseline."""
    best = rows.iloc[0]
    damage = number(best["damage_kl"], 4)
    cost = f"of {of}, {_pair(best)} costs least, {damage} nats of KL on the other domains"
    if baseline.empty:
        return f"{cost}; no feature chosen by mean difference reaches that effect"
    if best["baseline"]:
        return f"{cost}, the best feature chosen by mean difference"
    other = baseline.iloc[0]
    times = f"{number(best['ratio'], 3)} times as much as {_pair(other)}"
    return f"{cost}, {times}, {number(other['damage_kl'], 4)}"


def _pair(row: Any) -> str:
    return f"{direction_label(str(row['direction']))} ({row['edit']})"


def tradeoffs_figure(front: pd.DataFrame) -> go.Figure:
    """Effect against damage, a colour for each direction and a symbol for each edit."""
    rows = pd.DataFrame(front[front["effect"].notna()])
    colours = dict(zip(dict.fromkeys(rows["direction"]), cycle(COLOURS), strict=False))
    symbols = dict(zip(dict.fromkeys(rows["edit"]), cycle(SYMBOLS), strict=False))
    name = name_label(metric := str(rows["metric"].iloc[0]))
    plot = base(go.Figure(), f"{name} against damage", 560)
    for (direction, edit), own in rows.groupby(["direction", "edit"], sort=False):  # type: ignore[misc]
        plot.add_trace(_points(own, str(edit), colours[direction], symbols[edit]))
    plot.add_trace(_front_line(rows))
    for direction, colour in colours.items():
        plot.add_trace(
            legend_key(direction_label(direction), color=colour, symbol="circle", size=9)
        )
    for edit, symbol in symbols.items():
        plot.add_trace(legend_key(edit, color=NULL, symbol=symbol, size=9))
    damage = "Damage: mean KL on the other domains (nats)"
    plot.update_xaxes(type="log", dtick=1, exponentformat="power", title_text=damage)
    effect = axis_label(f"Effect: Δ {name}", metric_unit(metric))
    plot.update_yaxes(title_text=effect, zeroline=True, zerolinecolor=BAND_LINE)
    legend = {"x": 1.01, "y": 1, "font": {"size": 11.5}}
    return plot.update_layout(legend=legend, margin={"r": 250, "l": 84})


def _points(own: Any, edit: str, colour: str, symbol: str) -> go.Scatter:
    names = [direction_label(str(name)) for name in own["direction"]]
    about = list(zip(names, own["alpha"], own["effect_ci_low"], own["effect_ci_high"], strict=True))
    return go.Scatter(
        x=[max(FLOOR, value) for value in own["damage_kl"]],
        y=list(own["effect"]),
        mode="markers",
        marker={
            "color": colour,
            "symbol": symbol,
            "size": [12 if best else 8 for best in own["on_pareto_front"].astype(bool)],
            "line": {"color": INK, "width": list(1.2 * own["on_pareto_front"].astype(float))},
        },
        customdata=about,
        hovertemplate=(
            "%{customdata[0]}, " + plain(edit) + ", %{customdata[1]:.3g} × mean ‖x‖<br>effect "
            "%{y:.3g} [%{customdata[2]:.3g}, %{customdata[3]:.3g}]<br>damage %{x:.3g} nats"
            "<extra></extra>"
        ),
        showlegend=False,
    )


def _front_line(rows: pd.DataFrame) -> go.Scatter:
    """A line through the points that no other point beats on both effect and damage."""
    best = pd.DataFrame(rows[rows["on_pareto_front"].astype(bool)]).sort_values(by="effect")
    return go.Scatter(
        x=[max(FLOOR, value) for value in best["damage_kl"]],
        y=list(best["effect"]),
        mode="lines",
        line={"color": INK, "width": 1.25, "dash": "dot"},
        name="no other point is better on both",
        hoverinfo="skip",
    )


def by_domain_figure(matrix: pd.DataFrame, front: pd.DataFrame) -> go.Figure:
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
        colorbar={"title": {"text": axis_label("Δ", metric_unit(metric))}, "thickness": 12},
    )
    title = f"Interference: Δ {name_label(metric)} by domain"
    plot = base(go.Figure(heat), title, 170 + 30 * len(grid))
    return plot.update_layout(margin={"l": 230, "r": 110})


def strongest_edits(matrix: Any) -> Any:
    """The rows of the first edit at the largest strength of the grid."""
    own = matrix[(matrix["kind"] == "grid") & (matrix["edit"] == matrix["edit"].iloc[0])]
    return own[own["alpha"] == own["alpha"].max()]
