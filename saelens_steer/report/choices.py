"""Ways to choose features beside one another, by what the chosen ones do."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from saelens_steer.report.markup import TableCell, badge, esc, figure, note, section, table
from saelens_steer.report.run_folder import RunTables
from saelens_steer.report.theme import (
    BAND_LINE,
    INK,
    NULL,
    SIDE_COLOURS,
    TEMPLATE,
    axis_label,
    decimals,
    metric_unit,
    name_label,
    number,
    plain,
)

EQUAL = {"norm": "equal norm", "kl": "equal KL"}
KINDS = {
    "selection": "score",
    "tokens": "score: reads the metric's tokens",
    "ceiling": "ceiling: it uses the outcome",
    "without SAE": "needs no SAE",
    "asking": "no steering",
}
LEAD = (
    "The first features of each side that each way chooses, pushed on prompts that no score has "
    "seen. The effect is the shift of the metric towards the side, the mean over both sides, with "
    "95 % bootstrap intervals over prompts and directions. "
    "Ceiling: chosen by the gradient of the outcome itself, which shows what is possible and is no "
    "evidence. Asking: the same prompts with words that ask for it; its KL is what it is."
)


def choices_section(run: RunTables) -> str:
    """The comparison of ways to choose; empty where the run made none."""
    if run.comparison.empty:
        return ""
    own: Any = both(run.comparison)
    parts = [
        f"<p>{esc(choice_sentence(run.comparison))}</p>",
        figure("choices", choices_figure(run.comparison)),
        _table(own),
    ]
    if (own["equal"] == "asking").any():
        parts.append(note("Asking is not at equal norm or KL: compare its effect with its KL."))
    return section("choices", "Ways to choose features", LEAD, *parts)


def both(comparison: Any) -> pd.DataFrame:
    """The rows over both sides; those of one side where only one was compared."""
    rows = comparison[comparison["side"] == "both"]
    alone = comparison[~comparison["method"].isin(rows["method"])]
    return pd.concat([pd.DataFrame(rows), pd.DataFrame(alone)], ignore_index=True)


def choice_sentence(comparison: pd.DataFrame) -> str:
    """What the best score that does not differentiate the outcome gains over the baseline."""
    own: Any = both(comparison)
    baseline, metric = own["baseline"].iloc[0], own["metric"].iloc[0]
    scores = own[own["evidence"].isin(("selection", "tokens")) & (own["equal"] == "norm")]
    scores = scores[scores["side"] == "both"] if (scores["side"] == "both").any() else scores
    if scores.empty:
        return "No score was compared, only directions that need no SAE."
    best = scores.sort_values(by="effect", ascending=False, kind="stable").iloc[0]
    of = f"Of {len(scores)} score{'' if len(scores) == 1 else 's'}"
    if best["method"] == baseline:
        return f"{of}, none moves {metric} further than {baseline} does at equal norm."
    found = [_gain(_row(own, best["method"], equal), baseline) for equal in EQUAL]
    return (
        f"{of}, {best['method']} moves {metric} furthest at equal norm: {found[0]}; at equal KL: "
        f"{found[1]}. The intervals are not corrected for taking the best."
    )


def _row(own: pd.DataFrame, method: str, equal: str) -> Any:
    return own[(own["method"] == method) & (own["equal"] == equal)].iloc[0]


def _gain(row: Any, baseline: str) -> str:
    """`2.1 × [1.5, 3.0] the effect of the baseline`, or the difference where there is no ratio."""
    if math.isnan(row["difference"]):
        return f"{baseline} chose no direction to compare with"
    if not math.isnan(row["ratio"]):
        ratio, low, high = _times(row)
        return f"{ratio} × [{low}, {high}] the effect of {baseline}"
    places = decimals([row["effect"], row["difference"]])
    more, low, high = (
        number(row[f"difference{end}"], places, signed=True) for end in ("", "_ci_low", "_ci_high")
    )
    return f"{more} [{low}, {high}] beside {baseline}, whose effect is not clearly above 0"


def _times(row: Any) -> list[str]:
    """The ratio and the ends of its interval, to as many digits each."""
    places = 1 if abs(row["ratio"]) >= 2 else 2
    values = [float(row[f"ratio{end}"]) for end in ("", "_ci_low", "_ci_high")]
    return ["∞" if math.isinf(value) else number(value, places) for value in values]


def choices_figure(comparison: pd.DataFrame) -> go.Figure:
    """Effect of each way to choose, at equal norm and at equal KL, with intervals."""
    own: Any = both(comparison)
    metric = str(own["metric"].iloc[0])
    order = list(dict.fromkeys(own["method"]))[::-1]
    plot = go.Figure()
    looks = {"norm": (SIDE_COLOURS[0], "circle"), "kl": (SIDE_COLOURS[1], "diamond")}
    for equal, (colour, symbol) in (looks | {"asking": (INK, "x")}).items():
        rows = own[own["equal"] == equal]
        if not rows.empty:
            plot.add_trace(_dots(rows, colour, symbol, EQUAL.get(equal, "asking")))
    title = f"Ways to choose: {name_label(metric)}"
    plot.update_layout(template=TEMPLATE, title_text=plain(title), height=150 + 30 * len(order))
    label = axis_label(f"Δ {name_label(metric)} towards the side", metric_unit(metric))
    plot.update_xaxes(title_text=label, zeroline=True, zerolinecolor=BAND_LINE)
    plot.update_yaxes(categoryorder="array", categoryarray=[plain(m) for m in order], dtick=1)
    legend = {"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0}
    return plot.update_layout(legend=legend, margin={"t": 96, "l": 262})


def _dots(rows: pd.DataFrame, colour: str, symbol: str, name: str) -> go.Scatter:
    faded = [NULL if kind == "ceiling" else colour for kind in rows["evidence"]]
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
        name=plain(name),
        customdata=list(rows["kl"]),
        hovertemplate="%{y}<br>effect %{x:.3g}, KL %{customdata:.3g}<extra>" + name + "</extra>",
    )


def _table(own: pd.DataFrame) -> str:
    metric = name_label(str(own["metric"].iloc[0]))
    headers = ["Way", "What it is", "Compared at", f"Δ {metric} [95\u00a0%\u00a0CI]", "KL"]
    headers += ["× baseline [95\u00a0%\u00a0CI]", "Directions"]
    places = decimals(own["effect"])
    rows = [_cells(row, places) for row in own.to_dict("records")]
    return table("Ways to choose features", headers, rows)


def _cells(row: dict[str, Any], places: int) -> list[TableCell]:
    low, high = (number(row[f"effect_ci_{end}"], places, signed=True) for end in ("low", "high"))
    effect = f"{number(row['effect'], places, signed=True)} <small>[{low}, {high}]</small>"
    times, low_end, high_end = _times(row)
    ratio = f"{times} <small>[{low_end}, {high_end}]</small>"
    kind = KINDS[row["evidence"]]
    mark = badge(kind, "warn") if row["evidence"] == "ceiling" else esc(kind)
    names = str(row["directions"]).replace("_", " ").replace(" feature ", ", ")
    return [
        TableCell(f"<b>{esc(row['method'])}</b>", row["method"]),
        TableCell(mark, kind),
        TableCell(esc(EQUAL.get(row["equal"], "as it is")), row["equal"]),
        TableCell(effect, float(row["effect"])),
        TableCell(number(row["kl"], 4), float(row["kl"])),
        TableCell("–" if pd.isna(row["ratio"]) else ratio, _sortable(row["ratio"])),
        TableCell(f"<small>{esc(names)}</small>", names),
    ]


def _sortable(value: float) -> float:
    return value if math.isfinite(value) else -1e9
