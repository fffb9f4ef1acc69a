"""Methods of choosing directions, compared by the effects of the directions they choose."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from saelens_steer.numbers import decimals
from saelens_steer.report import theme
from saelens_steer.report.markup import chart, render
from saelens_steer.report.run_folder import RunTables
from saelens_steer.report.theme import SIDE_COLOURS, estimate, name_label, plain

EQUAL = {"norm": "equal norm", "kl": "equal KL"}
KINDS = {
    "selection": "score",
    "tokens": "score that reads the metric's tokens",
    "ceiling": "ceiling: uses the outcome",
    "without SAE": "needs no SAE",
    "control": "random directions",
    "given": "given in the config",
    "asking": "no steering",
}
LOOKS = {
    "norm": (SIDE_COLOURS[0], "circle"),
    "kl": (SIDE_COLOURS[1], "diamond"),
    "asking": (theme.INK, "x"),
}
"""Colour and symbol of the effects by what was equal."""


def comparison_section(run: RunTables) -> str:
    """The comparison of methods of choosing directions; empty if the run made none."""
    if run.comparison.empty:
        return ""
    rows = _over_sides(run.comparison)
    shown = [
        row
        | {
            "kind": KINDS[row["evidence"]],
            "at": EQUAL.get(row["equal"], "unmatched"),
            "times": [] if math.isnan(row["ratio"]) else _times(row),
            "names": str(row["directions"]).replace("_", " ").replace(" feature ", ", "),
        }
        for row in rows.to_dict("records")
    ]
    return render(
        "compare_directions.html",
        sentence=comparison_sentence(run.comparison),
        effects=chart("effect-by-method", comparison_figure(run.comparison, run.units)),
        rows=shown,
        places=decimals(rows["effect"]),
    )


def comparison_sentence(comparison: pd.DataFrame) -> str:
    """The gain over the baseline of the best score that does not differentiate the outcome."""
    rows = _over_sides(comparison)
    baseline, metric = rows["baseline"].iloc[0], rows["metric"].iloc[0]
    scores = rows[rows["evidence"].isin(("selection", "tokens")) & (rows["equal"] == "norm")]
    scores = scores[scores["side"] == "both"] if (scores["side"] == "both").any() else scores
    if scores.empty:
        return "No scores were compared, only directions that need no SAE."
    best = scores.sort_values(by="effect", ascending=False, kind="stable")["method"].iloc[0]
    of = f"Of {len(scores)} scores" if len(scores) > 1 else "With one score compared"
    if best == baseline and len(scores) == 1:
        return f"Only one score was compared: {best}."
    if best == baseline:
        return f"{of}, none moves {metric} further than {baseline} does at equal norm."
    own = rows[rows["method"] == best]
    at_norm, at_kl = (_gain(own[own["equal"] == equal].iloc[0], baseline) for equal in EQUAL)
    return (
        f"{of}, {best} moves {metric} furthest at equal norm: {at_norm}; at equal KL: {at_kl}. "
        "The intervals are not corrected for selecting the best score."
    )


def _over_sides(comparison: Any) -> Any:
    """The rows over both sides; for a method compared on one side only, its rows of that side."""
    rows = comparison[comparison["side"] == "both"]
    alone = comparison[~comparison["method"].isin(rows["method"])]
    return pd.concat([rows, alone], ignore_index=True)


def _gain(row: Any, baseline: str) -> str:
    """`2.1 [1.5, 3.0] times the effect of the baseline`, or the difference if there is no ratio."""
    if math.isnan(row["difference"]):
        return f"{baseline} chose no direction to compare with"
    if not math.isnan(row["ratio"]):
        ratio, low, high = _times(row)
        return f"{ratio} [{low}, {high}] times the effect of {baseline}"
    places = decimals([row["effect"], row["difference"]])
    more, low, high = estimate(row, "difference", places, signed=True)
    return f"{more} [{low}, {high}] relative to {baseline}, whose effect is not clearly positive"


def _times(row: Any) -> list[str]:
    """The ratio to the baseline and the ends of its interval, with the same number of digits."""
    texts = estimate(row, "ratio", 1 if abs(row["ratio"]) >= 2 else 2)
    ends = ("ratio", "ratio_ci_low", "ratio_ci_high")
    return ["∞" if math.isinf(row[end]) else text for end, text in zip(ends, texts, strict=True)]


def comparison_figure(comparison: pd.DataFrame, units: Mapping[str, str]) -> go.Figure:
    """The effect of each method at equal norm and at equal KL, with 95 % intervals."""
    rows, plot = _over_sides(comparison), go.Figure()
    for equal, (colour, symbol) in LOOKS.items():
        own = rows[rows["equal"] == equal]
        if not own.empty:
            plot.add_trace(_dots(own, colour, symbol, EQUAL.get(equal, equal)))
    metric, methods = str(rows["metric"].iloc[0]), list(dict.fromkeys(map(plain, rows["method"])))
    label = theme.axis_label(
        f"Δ {name_label(metric)} towards the chosen side", units.get(metric, "")
    )
    plot.update_xaxes(title_text=label, zeroline=True, zerolinecolor=theme.BAND_LINE)
    plot.update_yaxes(categoryorder="array", categoryarray=methods[::-1], dtick=1)
    plot.update_layout(legend_y=1.0, margin={"t": 96, "l": 262})
    return theme.base(
        plot, f"{name_label(metric)}: ways to choose features", 150 + 30 * len(methods)
    )


def _dots(rows: pd.DataFrame, colour: str, symbol: str, name: str) -> go.Scatter:
    faded = [theme.NULL if kind == "ceiling" else colour for kind in rows["evidence"]]
    return go.Scatter(
        x=list(rows["effect"]),
        y=[plain(method) for method in rows["method"]],
        error_x={
            "type": "data",
            "symmetric": False,
            "array": list(rows["effect_ci_high"] - rows["effect"]),
            "arrayminus": list(rows["effect"] - rows["effect_ci_low"]),
            "color": colour,
            "thickness": 1.25,
        },
        mode="markers",
        marker={"color": faded, "symbol": symbol, "size": 9, "line": {"color": colour, "width": 1}},
        name=name,
        customdata=list(rows["kl"]),
        hovertemplate="%{y}<br>effect %{x:.3g}, KL %{customdata:.3g}<extra>" + name + "</extra>",
    )
